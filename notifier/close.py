"""Results -> runs closed in the ledger, each with its email in the outbox, one transaction a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from ledger import Ledger, results
from ledger.rules import MailRules
from schemas.encoding import decode
from schemas.errors import InvalidMessage
from schemas.records import Result, result_from
from stream.letters import Rejected
from stream.messages import Message
from telemetry import metrics, traces
from telemetry.logs import bound

log = structlog.get_logger()


class Close:
    """The step of the notifier's loop."""

    def __init__(self, ledger: Ledger, mail: MailRules, closed: Callable[[], None]) -> None:
        """mail: the storm guard; closed: told once runs have been closed, after the commit; there may be emails in the outbox."""
        self._ledger = ledger
        self._mail = mail
        self._closed = closed

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        """Closes the runs that the results tell of, or queues them for another attempt; returns those that cannot be read.

        Raises TryLater when the ledger is away.
        A result that is not of its run's present lease, or whose run has ended, changes nothing; so may a batch come again.
        """
        readable: list[tuple[Result, str]] = []
        rejected: list[Rejected] = []
        for message in batch:
            try:
                readable.append((read_result(message), traces.of_headers(message.headers)))
            except InvalidMessage as error:
                rejected.append(Rejected(message, error.reason))
        readable.sort(key=lambda one: one[0].run_id)  # rows are locked in one order everywhere, against deadlocks
        if readable:
            with metrics.ledger_seconds.labels(operation="close").time(), self._ledger.write() as session:
                answers = [results.close(session, result, self._mail, trace) for result, trace in readable]
            for (result, _), answer in zip(readable, answers, strict=True):
                what = ("closed" if answer.state else "retried") if answer.counted else "stale"
                metrics.results_total.labels(outcome=what).inc()
                with bound(run_id=result.run_id, handler=answer.handler_name, request_id=answer.request_id):
                    if answer.counted:
                        log.info(
                            "closed" if answer.state else "failed, to be tried again",
                            outcome=result.outcome.value,
                            executor=result.executor,
                        )
                    else:
                        log.info(
                            "does not count", outcome=result.outcome.value, executor=result.executor, why=answer.why
                        )
            if any(answer.counted for answer in answers):
                self._closed()
        return rejected


def read_result(message: Message) -> Result:
    """The result that a message carries; raises InvalidMessage saying what is wrong with it."""
    plain = decode("result", message.value, message.headers)
    try:
        return result_from(plain)
    except ValueError as error:
        raise InvalidMessage(f"result: {error}", message.value or b"") from error
