"""Every way into a secured Kafka, against a real one; and that rotated secrets count without a restart."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from devstack.certificates import Authority
from schemas.acls import Acl
from schemas.errors import TryLater
from schemas.topics import Topic
from stream.broker import Broker, Consumer
from stream.kafka import KafkaBroker
from stream.kafka_member import KafkaMember
from stream.settings import StreamSettings
from telemetry.settings import from_environment
from tests.secure_kafka import SecureKafka, loopback

PATIENCE_S = 120.0
WAYS = ("scram-jaas", "scram-password", "oauth-file", "oauth-endpoint", "mtls")


@contextmanager
def token_endpoint(secured: SecureKafka, folder: Path, user: str) -> Iterator[str]:
    """Serves a client credentials grant over TLS, with short-lived tokens; writes its CA into the folder."""
    authority, address = Authority("tokens"), loopback()
    cert, key = authority.issue(address, [address])
    (folder / "tokens.pem").write_bytes(key + cert)
    (folder / "tokens-ca.pem").write_bytes(authority.pem)

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            known = self.headers["Authorization"] == "Basic YWxpY2U6Y2xpZW50LXNlY3JldA=="  # alice:client-secret
            good = known and form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
            self.send_response(200 if good else 401)
            self.end_headers()
            if good:
                answer = {"access_token": secured.issuer.token(user, 5), "token_type": "Bearer", "expires_in": 5}
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Tokens)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tokens.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://{address}:{server.server_address[1]}/token"
    server.shutdown()
    server.server_close()


def jaas(user: str, password: str) -> str:
    return (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{user}" password="{password}";'
    )  # fmt: skip


def client_files(folder: Path, authority: Authority, user: str) -> dict[str, Any]:
    """As in a Secret of Strimzi's: user.crt and user.key; returned as settings."""
    cert, key = authority.issue(user)
    (folder / "user.crt").write_bytes(cert)
    (folder / "user.key").write_bytes(key)
    return {"ssl_certfile": folder / "user.crt", "ssl_keyfile": folder / "user.key"}


def settings(secured: SecureKafka, **more: Any) -> StreamSettings:
    protocol = "SASL_SSL" if "sasl_mechanism" in more else "SSL"
    at = secured.sasl_ssl if protocol == "SASL_SSL" else secured.ssl
    known = {"bootstrap_servers": at, "security_protocol": protocol, "ssl_cafile": secured.ca, "replication": 1}
    return StreamSettings(**{**known, "request_timeout_ms": 3000, **more})


@pytest.fixture
def user() -> str:
    return f"alice-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topic(secured: SecureKafka) -> str:
    name = f"topic-{uuid.uuid4().hex[:8]}"
    plain = KafkaBroker(StreamSettings(bootstrap_servers=secured.plain, replication=1))
    plain.admin().ensure_topics([Topic(name, "key", 1, 3_600_000)], 1, 8 * 1024 * 1024)
    plain.close()
    return name


@pytest.fixture
def opened() -> Iterator[Callable[[StreamSettings], Broker]]:
    brokers: list[Broker] = []

    def make(wanted: StreamSettings) -> Broker:
        brokers.append(KafkaBroker(wanted))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


def allowed(secured: SecureKafka, principal: str, topic: str) -> None:
    rights = [Acl("topic", topic, False, operation) for operation in ("Read", "Write")]
    secured.allow(principal, *rights, Acl("group", f"group-{topic}", False, "Read"))


def carried(broker: Broker, topic: str, consumer: Consumer | None = None) -> bool:
    """Whether a message sent now comes back; waits for what time heals."""
    member = consumer or broker.consumer([topic], f"group-{topic}")
    producer, value = broker.producer(), uuid.uuid4().bytes
    eventually(lambda: sent(producer, topic, value))
    found: list[bytes] = []

    def fetched() -> bool:
        found.extend(message.value or b"" for message in member.poll(0.2, 10))
        return value in found

    return eventually(fetched)


def sent(producer: Any, topic: str, value: bytes) -> bool:
    producer.send(topic, value)
    producer.flush(5)
    return True


def _authenticated_since(instant: float, member: KafkaMember) -> bool:
    """Whether all its connections have proved since then who they are: the broker asks every few seconds (KIP-368)."""
    connections = list(member._client._manager._conns.values())
    return all((connection._reauth.authenticated_at or 0) > instant for connection in connections)


def eventually(done: Callable[[], bool]) -> bool:
    deadline, why = time.monotonic() + PATIENCE_S, "it was not so yet"
    while time.monotonic() < deadline:
        try:
            if done():
                return True
        except TryLater as error:
            why = error.reason
    pytest.fail(f"waited {PATIENCE_S:.0f} s; in the end: {why}")


@pytest.mark.parametrize("way", WAYS)
def test_a_message_goes_there_and_back_by_every_way_in(
    way: str, secured: SecureKafka, topic: str, user: str, tmp_path: Path, opened: Callable[[StreamSettings], Broker]
) -> None:
    secured.scram_user(user, "rabbit")
    (tmp_path / "sasl.jaas.config").write_text(jaas(user, "rabbit"))
    (tmp_path / "password").write_text("rabbit\n")
    (tmp_path / "token").write_text(secured.issuer.token(user))
    (tmp_path / "client-secret").write_text("client-secret")
    allowed(secured, f"User:CN={user}" if way == "mtls" else f"User:{user}", topic)
    scram, oauth = {"sasl_mechanism": "SCRAM-SHA-512"}, {"sasl_mechanism": "OAUTHBEARER"}
    with token_endpoint(secured, tmp_path, user) as url:
        options: dict[str, dict[str, Any]] = {
            "scram-jaas": {**scram, "sasl_jaas_config_file": tmp_path / "sasl.jaas.config"},
            "scram-password": {**scram, "sasl_username": user, "sasl_password_file": tmp_path / "password"},
            "oauth-file": {**oauth, "sasl_oauthbearer_token_endpoint_url": (tmp_path / "token").as_uri()},
            "oauth-endpoint": {
                **oauth,
                "sasl_oauthbearer_token_endpoint_url": url,
                "sasl_oauthbearer_client_id": "alice",
                "sasl_oauthbearer_client_secret_file": tmp_path / "client-secret",
                "sasl_oauthbearer_scope": "kafka",
                "sasl_oauthbearer_cafile": tmp_path / "tokens-ca.pem",
            },
            "mtls": client_files(tmp_path, secured.clients, user),
        }

        assert carried(opened(settings(secured, **options[way])), topic)


@pytest.mark.slow
def test_a_password_that_changes_at_the_broker_and_in_its_file_stops_nobody(
    secured: SecureKafka, topic: str, user: str, tmp_path: Path, opened: Callable[[StreamSettings], Broker]
) -> None:
    secured.scram_user(user, "rabbit")
    allowed(secured, f"User:{user}", topic)
    file = tmp_path / "sasl.jaas.config"
    file.write_text(jaas(user, "rabbit"))
    broker = opened(settings(secured, sasl_mechanism="SCRAM-SHA-512", sasl_jaas_config_file=file))
    member = broker.consumer([topic], f"group-{topic}")
    carried(broker, topic, member)

    secured.scram_user(user, "hare")
    with pytest.raises(TryLater):  # the old one is good for no new connection
        KafkaBroker(settings(secured, sasl_mechanism="SCRAM-SHA-512", sasl_jaas_config_file=file)).admin().ping()
    file.write_text(jaas(user, "hare"))
    changed_at = time.monotonic()

    assert isinstance(member, KafkaMember)
    assert eventually(lambda: carried(broker, topic, member) and _authenticated_since(changed_at, member))


def test_a_certificate_that_the_broker_refuses_is_waited_out_until_its_file_holds_a_good_one(
    secured: SecureKafka, topic: str, user: str, tmp_path: Path, opened: Callable[[StreamSettings], Broker]
) -> None:
    allowed(secured, f"User:CN={user}", topic)
    broker = opened(settings(secured, **client_files(tmp_path, Authority("somebody else"), user)))
    producer = broker.producer()
    with pytest.raises(TryLater):
        sent(producer, topic, b"early")

    client_files(tmp_path, secured.clients, user)

    assert eventually(lambda: sent(producer, topic, b"late"))
    assert carried(broker, topic)


def test_a_broker_that_another_authority_vouches_for_is_told_nothing(
    secured: SecureKafka, user: str, tmp_path: Path, opened: Callable[[StreamSettings], Broker]
) -> None:
    (tmp_path / "ca.crt").write_bytes(Authority("somebody else").pem)
    files = client_files(tmp_path, secured.clients, user)
    wrong = settings(secured, **{**files, "ssl_cafile": tmp_path / "ca.crt"})

    with pytest.raises(TryLater):
        opened(wrong).admin().ping()

    (tmp_path / "ca.crt").write_bytes(secured.ca.read_bytes())
    opened(wrong).admin().ping()  # the same settings: only the file has changed


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"security_protocol": "SASL_SSL"}, "SASL_MECHANISM is not set"),
        ({"sasl_mechanism": "SCRAM-SHA-512"}, "it should be SASL_SSL"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512"}, "SASL_JAAS_CONFIG_FILE"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "TOKEN_ENDPOINT_URL: https"),
        ({"security_protocol": "SSL", "ssl_certfile": "/nowhere/user.crt"}, "belong together"),
        ({"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.crt"}, "/nowhere/ca.crt cannot be read"),
        ({"ssl_cafile": "/nowhere/ca.crt"}, "it should be SSL or SASL_SSL"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "DIGEST-MD5"}, "PLAIN|SCRAM"),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauthbearer_token_endpoint_url": "http://issuer.example.com",
            },
            "https://",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_with_what_would_be_right(
    given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError, match=told.replace("|", r"\|")):
        StreamSettings(bootstrap_servers="localhost:9092", **given)


def test_a_wrong_option_does_not_show_the_password_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    monkeypatch.setenv("EVENTPROC_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("EVENTPROC_KAFKA_SASL_PASSWORD", "rabbit")

    with pytest.raises(SystemExit):
        from_environment(StreamSettings)

    said = capsys.readouterr().err
    assert "EVENTPROC_KAFKA_SASL_MECHANISM is not set; with SASL_SSL it should be one of" in said
    assert "rabbit" not in said


@pytest.mark.parametrize(
    "text",
    [
        'org.apache.kafka.common.security.scram.ScramLoginModule required username="bob" password="a\\"b;=c";',
        'org.apache.kafka.common.security.plain.PlainLoginModule required\n  password="a\\"b;=c"\n  username=bob;\n',
    ],
)
def test_a_jaas_line_is_read_as_kafka_reads_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "jaas").write_text(text)
    made = StreamSettings(
        bootstrap_servers="localhost:9092",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_jaas_config_file=tmp_path / "jaas",
    )

    assert made.connection()["sasl_oauth_token_provider"].login() == ("bob", 'a"b;=c')
