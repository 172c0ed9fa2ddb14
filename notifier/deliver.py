"""One SMTP conversation: hands emails over, and says by its errors what must happen to one that was not taken."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from faults import point
from notifier.settings import NotifierSettings
from schemas.errors import TryLater

GREETING = 220
AT_ONCE_S = 5.0  # so soon a server that ends a kept conversation says so; one that hangs has used up its time
TOO_LARGE = (
    552  # RFC 1870: the answer to MAIL FROM with a SIZE that is too large speaks of the message, not of the sender
)


class NotNow(Exception):
    """The server puts this email off (4yz, RFC 5321 section 4.2.1): try it again later."""


class Refused(Exception):
    """The server will not take this email, now or later (5yz): give it up."""


class Conversation:
    """A connection that is made at the first email, kept for the next ones, and ended on leaving the with block."""

    def __init__(self, settings: NotifierSettings) -> None:
        self._settings = settings
        self._client: smtplib.SMTP | None = None
        self._handed = False  # an email by this connection
        self._said_data = False  # of the present email: from there on it may have been taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            try:
                self._client.quit()
            except (OSError, smtplib.SMTPException):
                self._client.close()  # the server was quicker

    def connect(self) -> None:
        """Makes the connection, with TLS and login as the settings say; does nothing when there is one. Blocks.

        Raises TryLater when the server is away, or will not talk to us (no STARTTLS, login refused): no email's fault.
        """
        if self._client is not None:
            return
        try:
            self._client, self._handed = self._opened(), False
            self._note_data(self._client)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise self._away(error) from error

    def deliver(self, recipient: str, message: bytes) -> None:
        """Hands one email over; returns once the server has taken it on. Blocks.

        message: headers and body with CRLF, 7 bit. Raises NotNow, Refused, or TryLater (then it may also have been taken).
        """
        kept, began = self._handed, time.monotonic()
        self.connect()
        try:
            self._hand_over(recipient, message)
        except TryLater:
            if not kept or self._said_data or time.monotonic() - began > AT_ONCE_S:
                raise
            # servers end a conversation after so many emails, or after one: that is no failure, and nothing was taken
            self.connect()
            self._hand_over(recipient, message)
        self._handed = True

    def _hand_over(self, recipient: str, message: bytes) -> None:
        assert self._client is not None
        self._said_data = False
        try:
            point("smtp.before_data")
            with _within(self._client, self._settings.mail_s):
                self._client.sendmail(self._settings.sender, [recipient], message)
            point("smtp.after_data")
        except smtplib.SMTPRecipientsRefused as error:
            code, said = error.recipients[recipient]
            if code == 421:
                raise self._away(error, code, said) from error
            raise _not_taken(code, said, "the recipient") from error
        except smtplib.SMTPDataError as error:
            if error.smtp_code == 421:
                raise self._away(error, error.smtp_code, error.smtp_error) from error
            raise _not_taken(error.smtp_code, error.smtp_error, "the email") from error
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code == TOO_LARGE:
                raise _not_taken(error.smtp_code, error.smtp_error, "the email") from error
            raise self._away(error, error.smtp_code, error.smtp_error) from error
        except (OSError, smtplib.SMTPException) as error:
            raise self._away(error) from error

    def _note_data(self, client: smtplib.SMTP) -> None:
        data = client.data

        def noting(message: Any) -> tuple[int, bytes]:
            self._said_data = True
            return data(message)

        client.data = noting  # type: ignore[method-assign, assignment]

    def _opened(self) -> smtplib.SMTP:
        settings = self._settings
        tls = ssl.create_default_context(cafile=str(settings.smtp_ca) if settings.smtp_ca else None)
        client: smtplib.SMTP
        if settings.smtp_security == "tls":
            client = smtplib.SMTP_SSL(timeout=settings.smtp_timeout_s, context=tls)
        else:
            client = smtplib.SMTP(timeout=settings.smtp_timeout_s)
        client._host = settings.smtp_host  # type: ignore[attr-defined]  # the name that TLS checks; connect() does not set it
        try:
            with _within(client, settings.mail_s):
                code, said = client.connect(settings.smtp_host, settings.port)
                if code != GREETING:
                    raise smtplib.SMTPConnectError(code, said)
                if settings.smtp_security == "starttls":
                    client.starttls(context=tls)  # raises when the server does not offer it: never in the clear instead
                if settings.smtp_user:
                    client.login(settings.smtp_user, settings.password())
                client.ehlo_or_helo_if_needed()
        except BaseException:
            client.close()
            raise
        return client

    def _away(self, error: Exception, code: int = 0, said: bytes | str = b"") -> TryLater:
        if self._client is not None:
            self._client.close()
            self._client = None
        detail = f"{code} {_text(said)}" if code else f"{error.__class__.__name__}: {error}"[:300]
        return TryLater(f"SMTP server {self._settings.smtp_host}:{self._settings.port}: {detail}")


@contextlib.contextmanager
def _within(client: smtplib.SMTP, seconds: float) -> Iterator[None]:
    """Breaks the connection off when the block takes longer. The socket's own timeout begins anew with each byte, so a server
    that says a little now and then would hold the sender for ever."""

    def cut() -> None:
        connection = client.sock
        if connection is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _not_taken(code: int, said: bytes | str, what: str) -> NotNow | Refused:
    if 400 <= code < 500:
        return NotNow(f"the server put {what} off: {code} {_text(said)}")
    return Refused(f"the server refused {what}: {code} {_text(said)}")


def _text(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:300]
