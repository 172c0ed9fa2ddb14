"""What the SMTP server says decides what becomes of an email."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from notifier.deliver import Conversation, NotNow, Refused
from notifier.settings import NotifierSettings
from schemas.errors import TryLater

Serve = Callable[..., Any]
Settings = Callable[..., NotifierSettings]
MESSAGE = b"Subject: hello\r\n\r\n.leading dot\r\nlast line\r\n"


class Server:
    """An aiosmtpd handler that answers as told and keeps what it takes."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.kept: list[bytes] = []
        self.connections = 0
        self.secure: list[bool] = []

    def protocol(self, **options: Any) -> Callable[[], SMTP]:
        def make() -> SMTP:
            self.connections += 1
            return SMTP(self, hostname="mail.example.com", **options)

        return make

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if getattr(session, "handed", False) and "second" in self.answers:
            if self.answers["second"] == "close":
                server.transport.abort()
            return self.answers["second"]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.answers.get("mail", "250 OK")

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, options: Any) -> str:
        answer = self.answers.get("rcpt", "250 OK")
        if address.startswith("bob"):
            answer = "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = self.answers.get("data", "250 OK")
        if answer == "drop":
            server.transport.abort()
            return "250 OK"
        if answer == "hang":
            await asyncio.sleep(3600)
        if answer == "slow":
            await asyncio.sleep(0.3)
            answer = "250 OK"
        if answer.startswith("250"):
            session.handed = True
            self.kept.append(envelope.content)
            self.secure.append(session.ssl is not None or server.transport.get_extra_info("ssl_object") is not None)
        return answer


def test_an_email_arrives_as_it_was_sent(smtp: Serve, settings: Settings) -> None:
    server = Server()
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == [MESSAGE]


def test_a_batch_takes_one_connection(smtp: Serve, settings: Settings) -> None:
    server = Server()
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        for _ in range(3):
            conversation.deliver("alice@example.com", MESSAGE)
    assert len(server.kept) == 3
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answers", "error", "said"),
    [
        ({"rcpt": "550 5.1.1 no such user"}, Refused, "refused the recipient: 550 5.1.1 no such user"),
        ({"rcpt": "450 4.2.1 mailbox busy"}, NotNow, "put the recipient off: 450 4.2.1 mailbox busy"),
        ({"data": "554 5.7.1 looks like spam"}, Refused, "refused the email: 554 5.7.1 looks like spam"),
        ({"data": "451 4.3.0 try again"}, NotNow, "put the email off: 451 4.3.0 try again"),
        ({"mail": "552 5.3.4 too large"}, Refused, "refused the email: 552 5.3.4 too large"),
        ({"mail": "550 5.7.1 sender not allowed"}, TryLater, "550 5.7.1 sender not allowed"),
        ({"mail": "451 4.3.2 busy"}, TryLater, "451 4.3.2 busy"),
        ({"rcpt": "421 4.3.2 shutting down"}, TryLater, "421 4.3.2 shutting down"),
        ({"data": "drop"}, TryLater, "SMTPServerDisconnected"),
    ],
)
def test_the_answer_says_what_becomes_of_it(
    answers: dict[str, str], error: type[Exception], said: str, smtp: Serve, settings: Settings
) -> None:
    with smtp(Server(**answers).protocol()) as port, Conversation(settings(port)) as conversation:
        with pytest.raises(error) as raised:
            conversation.deliver("alice@example.com", MESSAGE)
        assert said in str(raised.value)


def test_one_refused_recipient_does_not_keep_the_next_email_waiting(smtp: Serve, settings: Settings) -> None:
    server = Server(rcpt="550 no such user")
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        with pytest.raises(Refused):
            conversation.deliver("alice@example.com", MESSAGE)
        conversation.deliver("bob@example.com", MESSAGE)
    assert len(server.kept) == 1
    assert server.connections == 1


def test_after_a_lost_connection_the_next_email_takes_a_new_one(smtp: Serve, settings: Settings) -> None:
    server = Server(data="drop")
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        with pytest.raises(TryLater):
            conversation.deliver("alice@example.com", MESSAGE)
        server.answers = {}
        conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == [MESSAGE]
    assert server.connections == 2


@pytest.mark.parametrize("second", ["421 4.7.0 one email at a time", "close"])
def test_a_server_that_ends_the_conversation_after_each_email_is_connected_to_again_at_once(
    second: str, smtp: Serve, settings: Settings
) -> None:
    server = Server(second=second)
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        for _ in range(3):
            conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == [MESSAGE] * 3
    assert server.connections == 3


def test_an_email_over_which_a_kept_connection_is_lost_is_not_sent_again_at_once(
    smtp: Serve, settings: Settings
) -> None:
    server = Server()
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        conversation.deliver("alice@example.com", MESSAGE)
        server.answers = {"data": "drop"}
        with pytest.raises(TryLater):  # it may have been taken
            conversation.deliver("alice@example.com", MESSAGE)
    assert server.connections == 1


def test_a_server_that_says_nothing_is_away_after_the_timeout(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conversation = Conversation(settings(silent.getsockname()[1], smtp_timeout_s=0.2))
        with pytest.raises(TryLater, match="timed out"):
            conversation.connect()


def test_a_server_that_hangs_over_an_email_is_away_after_the_timeout(smtp: Serve, settings: Settings) -> None:
    with smtp(Server(data="hang").protocol()) as port:
        conversation = Conversation(settings(port, smtp_timeout_s=0.5))
        with conversation, pytest.raises(TryLater, match=r"TimeoutError|timed out"):
            conversation.deliver("alice@example.com", MESSAGE)


@contextmanager
def dripping(greets: bool) -> Iterator[int]:
    """A server that says a little all the time and never comes to an end; after its greeting, or with it. Gives its port."""
    stop = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if greets:
                connection.sendall(b"220 mail.example.com\r\n")
                connection.recv(1000)
            while not stop.wait(0.02):
                connection.sendall(b"250-wait a little\r\n" if greets else b"220-wait a little\r\n")

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        stop.set()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("greets", [True, False])
def test_a_server_that_drips_and_never_answers_is_cut_off(greets: bool, settings: Settings) -> None:
    with dripping(greets) as port:
        conversation = Conversation(settings(port, smtp_timeout_s=0.1))
        with conversation, pytest.raises(TryLater, match="SMTPServerDisconnected"):
            conversation.deliver("alice@example.com", MESSAGE)


def test_a_slow_server_is_waited_for(smtp: Serve, settings: Settings) -> None:
    server = Server(data="slow")
    with smtp(server.protocol()) as port, Conversation(settings(port)) as conversation:
        conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == [MESSAGE]


def test_a_server_that_greets_with_a_refusal_is_away(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"554 5.3.2 no mail today\r\n"), daemon=True).start()
        with pytest.raises(TryLater, match="no mail today"):
            Conversation(settings(server.getsockname()[1])).connect()


def test_a_server_that_is_not_there_is_away_and_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(TryLater, match=rf"SMTP server 127\.0\.0\.1:{port}: ConnectionRefusedError"):
        Conversation(settings(port)).connect()


def test_nothing_goes_in_the_clear_when_the_server_offers_no_starttls(smtp: Serve, settings: Settings) -> None:
    server = Server()
    with smtp(server.protocol()) as port:
        conversation = Conversation(settings(port, smtp_security="starttls"))
        with conversation, pytest.raises(TryLater, match="STARTTLS"):
            conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == []


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


def _login(password: bytes) -> Callable[..., AuthResult]:
    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        right = given.login == b"eventproc" and given.password == password
        return AuthResult(success=right, handled=False)  # the answer is the server's to give

    return check


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # aiosmtpd does not see TLS that was there from the start
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_secured_server_that_wants_a_login_takes_the_email(
    security: str, smtp: Serve, settings: Settings, tmp_path: Path
) -> None:
    ca, context = _certificate(tmp_path)
    server = Server()
    options = {"authenticator": _login(b"right"), "auth_required": True, "auth_require_tls": security == "starttls"}
    if security == "starttls":
        protocol, transport = server.protocol(tls_context=context, require_starttls=True, **options), {}
    else:
        protocol, transport = server.protocol(**options), {"ssl": context}
    with smtp(protocol, **transport) as port:
        known = settings(port, smtp_security=security, smtp_ca=ca, smtp_user="eventproc", smtp_password="right")
        with Conversation(known) as conversation:
            conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == [MESSAGE]
    assert server.secure == [True]


def test_a_login_that_is_refused_is_no_fault_of_the_email(smtp: Serve, settings: Settings, tmp_path: Path) -> None:
    ca, context = _certificate(tmp_path)
    protocol = Server().protocol(
        tls_context=context, require_starttls=True, authenticator=_login(b"right"), auth_required=True
    )
    with smtp(protocol) as port:
        wrong = settings(port, smtp_security="starttls", smtp_ca=ca, smtp_user="eventproc", smtp_password="wr0ng")
        with Conversation(wrong) as conversation, pytest.raises(TryLater, match="535") as raised:
            conversation.deliver("alice@example.com", MESSAGE)
    assert "wr0ng" not in str(raised.value)


def test_a_password_that_changes_in_its_file_counts_with_the_next_connection(
    smtp: Serve, settings: Settings, tmp_path: Path
) -> None:
    ca, context = _certificate(tmp_path)
    server, file = Server(), tmp_path / "password"
    protocol = server.protocol(
        tls_context=context, require_starttls=True, authenticator=_login(b"right"), auth_required=True
    )
    with smtp(protocol) as port:
        known = settings(port, smtp_security="starttls", smtp_ca=ca, smtp_user="eventproc", smtp_password_file=file)
        for content, told in (None, "No such file"), ("wr0ng", "535"):
            if content is not None:
                file.write_text(content)
            with Conversation(known) as conversation, pytest.raises(TryLater, match=told):
                conversation.deliver("alice@example.com", MESSAGE)
        file.write_text("right\n")
        with Conversation(known) as conversation:
            conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == [MESSAGE]


def test_a_server_with_an_unknown_certificate_gets_nothing(smtp: Serve, settings: Settings, tmp_path: Path) -> None:
    _, context = _certificate(tmp_path)
    server = Server()
    with smtp(server.protocol(tls_context=context)) as port:
        conversation = Conversation(settings(port, smtp_security="starttls"))
        with conversation, pytest.raises(TryLater, match="CERTIFICATE_VERIFY_FAILED"):
            conversation.deliver("alice@example.com", MESSAGE)
    assert server.kept == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"smtp_user": "eventproc", "smtp_password": "x"}, "not sent in the clear"),
        ({"sender": "alice@example.com\r\nBcc: bob@example.com"}, "one email address"),
        ({"lease_s": 10.0}, "NOTIFIER_LEASE_S"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    changes: dict[str, Any], complaint: str, settings: Settings
) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings(25, **changes)


def test_the_wait_doubles_up_to_its_limit(settings: Settings) -> None:
    given = settings(25, first_wait_s=5.0, longest_wait_s=60.0)
    assert [given.wait_s(tries) for tries in (0, 1, 2, 3, 4, 5, 250)] == [5.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
