"""The outbox -> email: takes due emails under a lease, hands them to the SMTP server, and notes what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from ledger import Ledger, outbox
from ledger.outbox import Mail
from ledger.tables import PENDING, SENDING
from notifier.attach import Files
from notifier.deliver import Conversation, NotNow, Refused
from notifier.render import CannotRender, render
from notifier.settings import NotifierSettings
from objectstore import ObjectStore
from schemas.addresses import allowed, check_address
from schemas.errors import TryLater
from telemetry import metrics, traces
from telemetry.health import Health
from telemetry.logs import bound

log = structlog.get_logger()

T = TypeVar("T")
MOST_LINKS = 100
MEASURE_S = 15.0  # counting the outbox reads its whole index: not at every turn


class Sender:
    """Sends what is due. An email is sent at least once; a second copy (the process died before it noted the first) has the
    same Message-ID, by which mail programs know it."""

    def __init__(self, ledger: Ledger, settings: NotifierSettings, health: Health) -> None:
        self._ledger = ledger
        self._settings = settings
        self._health = health
        store = ObjectStore(settings.files) if settings.files else None
        self._files = Files(settings.downloads_endpoint, store, settings.picture_bytes)
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._failures = 0  # since something was sent
        self._measured = float("-inf")

    def wake(self) -> None:
        """There may be something to send: look at once. Any thread."""
        self._woken.set()

    def stop(self) -> None:
        """run() is to return after the email it is at."""
        self._stop.set()
        self._woken.set()

    def run(self) -> None:
        """Sends until stop(); blocks. A server or a ledger that is away is waited for, and shown in readiness."""
        server_known = False
        while not self._stop.is_set():
            away: TryLater | None = None
            try:
                if not server_known:
                    self._probe()
                    server_known = True
                while self.turn() == self._settings.batch and not self._stop.is_set():
                    pass
                self._failures = 0
            except TryLater as error:
                away, server_known = error, False
                self._failures = min(self._failures + 1, 30)
                log.warning("sending waits", reason=error.reason)
            self._measure_now_and_then()
            if away is None:
                self._woken.wait(self._settings.every_s)
                self._woken.clear()
            else:
                self._stop.wait(max(min(self._settings.every_s * 2**self._failures, 30.0), away.after_s))

    def turn(self) -> int:
        """Takes one batch of due emails and sends it; returns how many were taken.

        Raises TryLater when the ledger or the SMTP server is away; the emails taken are then due again after their wait.
        """
        settings = self._settings
        began = time.monotonic()
        mails = self._noted(
            lambda session: outbox.take(session, settings.name, settings.batch, settings.lease_s), began
        )
        if mails:
            self._send(mails, began)
        return len(mails)

    def measure(self) -> None:
        """Sets the gauge of emails that wait. Raises TryLater."""
        with self._ledger.read() as session:
            counts = outbox.counts(session)
        metrics.emails_pending.set(counts.get(PENDING, 0) + counts.get(SENDING, 0))

    def _measure_now_and_then(self) -> None:
        """Also while nothing can be sent: that is when somebody wants to know."""
        if time.monotonic() - self._measured < MEASURE_S:
            return
        try:
            self.measure()
            self._measured = time.monotonic()
        except TryLater as error:
            log.warning("the outbox was not counted", reason=error.reason)

    def _probe(self) -> None:
        try:
            with Conversation(self._settings) as conversation:
                conversation.connect()
        except TryLater as error:
            self._health.ready("smtp", False, error.reason)
            raise
        self._health.ready("smtp", True)

    def _send(self, mails: Sequence[Mail], began: float) -> None:
        """Hands them over one after the other; those that it does not come to are put back at once."""
        enough = began + self._settings.lease_s - self._settings.mail_s
        with Conversation(self._settings) as conversation:
            for place, mail in enumerate(mails):
                if self._stop.is_set() or time.monotonic() > enough:
                    self._put_back(mails[place:], began)
                    return
                with bound(**_context(mail)):
                    try:
                        self._send_one(conversation, mail, began)
                    except TryLater as error:
                        self._health.ready("smtp", False, error.reason)
                        self._postpone(mail, error.reason, began)
                        self._put_back(mails[place + 1 :], began)
                        raise
        self._health.ready("smtp", True)

    def _send_one(self, conversation: Conversation, mail: Mail, began: float) -> None:
        parents = [run.traceparent for run in mail.runs or mail.lines]
        of_one = parents[0] if mail.runs else ""
        links = () if of_one else parents[:MOST_LINKS]
        with traces.span("email", of_one, "client", links=links, kind_of_email=mail.kind, tries=mail.tries) as span:
            self._deliver(conversation, mail, began, span)

    def _deliver(self, conversation: Conversation, mail: Mail, began: float, span: traces.Span) -> None:
        refusal = self._refusal(mail)
        if refusal:
            span.fail(refusal)
            self._give_up(mail, refusal, began)
            return
        try:
            message = render(mail, self._settings.sender, self._files)
            with metrics.email_seconds.time():
                conversation.deliver(mail.recipient, message.as_bytes())
        except (Refused, CannotRender) as error:
            span.fail(str(error))
            self._give_up(mail, str(error), began)
        except NotNow as error:
            span.fail(str(error))
            self._postpone(mail, str(error), began)
        else:
            self._failures = 0
            self._noted(lambda session: outbox.sent(session, mail), began)
            metrics.emails_total.labels(outcome="sent").inc()
            metrics.runs_mailed_total.labels(outcome="sent").inc(_runs(mail))
            log.info("sent", recipient=mail.recipient, kind=mail.kind, message_id=mail.message_id)

    def _refusal(self, mail: Mail) -> str:
        try:
            check_address(mail.recipient)
        except ValueError as error:
            return f"the recipient {error}"
        if not allowed(mail.recipient, self._settings.mail_domains):
            return "the recipient's domain is not among those of EVENTPROC_MAIL_DOMAINS"
        return ""

    def _give_up(self, mail: Mail, reason: str, began: float) -> None:
        self._noted(lambda session: outbox.give_up(session, mail, reason), began)
        metrics.emails_total.labels(outcome="given_up").inc()
        metrics.runs_mailed_total.labels(outcome="given_up").inc(_runs(mail))
        log.error("given up", recipient=mail.recipient, kind=mail.kind, reason=reason)

    def _postpone(self, mail: Mail, reason: str, began: float) -> None:
        if mail.tries >= self._settings.most_tries:
            self._give_up(mail, f"{reason} (tried {mail.tries} times)", began)
            return
        wait = self._settings.wait_s(mail.tries)
        self._noted(lambda session: outbox.postpone(session, mail, reason, wait), began)
        metrics.emails_total.labels(outcome="postponed").inc()
        log.warning(
            "postponed", recipient=mail.recipient, kind=mail.kind, reason=reason, after_s=wait, tries=mail.tries
        )

    def _put_back(self, mails: Sequence[Mail], began: float) -> None:
        def put_back(session: Session) -> None:
            for mail in mails:
                outbox.put_back(session, mail)

        if mails:
            self._noted(put_back, began)

    def _noted(self, work: Callable[[Session], T], began: float) -> T:
        """Does the work in a writing transaction, again while the ledger is busy, for as long as the lease may hold."""
        wait = 0.05
        while True:
            try:
                with metrics.ledger_seconds.labels(operation="outbox").time(), self._ledger.write() as session:
                    done = work(session)
                self._health.ready("outbox", True)
                return done
            except TryLater as error:
                self._health.ready("outbox", False, error.reason)
                if self._stop.is_set() or time.monotonic() - began > self._settings.lease_s:
                    raise
                self._stop.wait(max(wait, error.after_s))
                wait = min(wait * 2, 5.0)


def _runs(mail: Mail) -> int:
    """How many runs the email accounts for."""
    return len(mail.lines or mail.runs)


def _context(mail: Mail) -> dict[str, str]:
    if mail.lines:
        return {"runs": str(len(mail.lines)), "handler": mail.lines[0].handler_name}
    if not mail.runs:
        return {}
    first = mail.runs[0]
    return {"run_id": first.run_id, "handler": first.handler_name, "request_id": first.request_id}
