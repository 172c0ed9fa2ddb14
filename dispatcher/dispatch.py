"""Event -> matching handlers, frozen -> runs in the ledger -> one invitation each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from dispatcher.invite import invite
from ledger import Ledger
from ledger.events import Match, not_sent, record_events
from ledger.fair import Invitation
from ledger.handlers import matchable, revision
from ledger.match import TagIndex
from ledger.rules import Rules
from schemas.errors import InvalidMessage, TryLater
from schemas.events import Event, read_event
from stream.broker import Producer
from stream.letters import Rejected
from stream.messages import Message
from telemetry import metrics, traces
from telemetry.station import make_way

log = structlog.get_logger()

LOGGED_TAGS = 20


class Dispatch:
    """The dispatcher's step of the processing loop; keeps the tag index of the last revision it saw."""

    def __init__(
        self,
        ledger: Ledger,
        producer: Producer,
        rules: Rules,
        flush_timeout_s: float = 10.0,
        event_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        """rules: as the registry and the sweeper have them; they say how many runs may be invited at once. event_bytes: of the
        largest event, as JSON."""
        self._event_bytes = event_bytes
        self._ledger = ledger
        self._rules = rules
        self._producer = producer
        self._flush_timeout_s = flush_timeout_s
        self._index = TagIndex((), revision=-1)
        self._sent: list[str] = []  # runs whose invitations the broker has not acknowledged yet

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        """Freezes the matches of every event of the batch, makes their runs, invites.

        When it returns, all that follows from the batch is durable in the ledger: its offsets may be committed. The invitations
        are on their way; they are acknowledged while the next batch is recorded, and looked after by settle() before its own
        are sent. An event that was here before gets the same runs, and those still waiting are invited again. Returns what
        could not be read. Raises TryLater when the ledger or the broker is away.
        """
        began = time.monotonic()
        make_way(len(batch))
        rejected: list[Rejected] = []
        events: list[tuple[Event, Message]] = []
        spans: list[traces.Span] = []
        for message in batch:
            try:
                event = self._read(message)
            except InvalidMessage as error:
                rejected.append(Rejected(message, error.reason))
                continue
            came = traces.of_headers(message.headers)
            spans.append(traces.start(f"dispatch {event.hook}", came, "consumer", request_id=event.request_id))
            events.append((replace(event, trace=spans[-1].traceparent), message))
        if events:
            try:
                rejected.extend(self._dispatch(events))
            finally:
                for span in spans:
                    span.end()
            metrics.dispatch_seconds.observe(time.monotonic() - began)
        return rejected

    def settle(self) -> None:
        """Waits until the broker has acknowledged what was sent; what it has not is left to the sweeper, and TryLater is raised."""
        sent, self._sent = self._sent, []
        if not sent:
            return
        try:
            self._producer.flush(self._flush_timeout_s)
        except TryLater:
            with self._ledger.write() as session:
                not_sent(session, sent)
            raise

    def _dispatch(self, events: Sequence[tuple[Event, Message]]) -> list[Rejected]:
        with self._ledger.write() as session:
            # read after the batch was fetched: no handler registered before an event was published can be missed
            now = revision(session)
            if now != self._index.revision:
                self._index = TagIndex(matchable(session), now)
            dispatches = [(event, self._matches(event)) for event, _ in events]
            recorded = record_events(session, dispatches, self._rules)
        invitations: list[Invitation] = []
        traced: dict[str, str] = {}
        rejected = []
        for (event, message), record in zip(events, recorded, strict=True):
            if record.differs:
                rejected.append(Rejected(message, _used_before(event, record.differs)))
                continue
            invitations.extend(record.invitations)
            traced.update((invitation.run_id, event.trace) for invitation in record.invitations)
            self._tell(event, record.new, record.runs, len(record.invitations))
        self.settle()
        self._sent = [invitation.run_id for invitation in invitations]
        try:
            invite(self._producer, invitations, traced)
        except TryLater:
            self.settle()
            raise
        return rejected

    def _read(self, message: Message) -> Event:
        event = read_event(message.topic, message.value, message.headers)
        size = len(event.body())
        if size > self._event_bytes:
            raise InvalidMessage(
                f"{event.hook}: the event has {size} bytes as JSON; at most {self._event_bytes} are taken (DISPATCHER_EVENT_BYTES)",
                message.value or b"",
            )
        return event

    def _matches(self, event: Event) -> list[Match]:
        return [
            Match(handler.handler_id, handler.version, handler.owner, handler.runtime)
            for handler in self._index.handlers(event)
        ]

    @staticmethod
    def _tell(event: Event, new: bool, runs: int, invited: int) -> None:
        if new:
            metrics.events_dispatched_total.labels(hook=event.hook).inc()
            metrics.runs_created_total.labels(hook=event.hook).inc(runs)
        log.info(
            "dispatched" if new else "dispatched before",
            hook=event.hook,
            request_id=event.request_id,
            tags=event.tags[:LOGGED_TAGS],
            runs=runs,
            invited=invited,
            **({"trace_id": event.trace[3:35]} if event.trace else {}),
        )


def _used_before(event: Event, differs: str) -> str:
    return (
        f"{event.hook}: RequestID: {event.request_id} was used before by another event, which {differs}; this one, of "
        f"{event.subject[:200]!r} with the tags {list(event.tags[:LOGGED_TAGS])}, ran nothing: each event needs an id of its own"
    )
