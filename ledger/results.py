"""Result -> run closed, once, under its present lease."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.claims import end_attempt, lease_counts, requeue
from ledger.engine import is_postgresql, now_ms, storable
from ledger.files import add_files
from ledger.keys import note_refused
from ledger.notify import close_run
from ledger.rules import MailRules
from ledger.tables import REPORTED, RUNNING, HandlerRow, HandlerVersionRow, RunRow
from schemas.records import Outcome, Result, RunError

DEFAULT = MailRules()
RETRIED = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.CRASHED})
"""What may end otherwise another time. What could not be loaded will not load then either."""


@dataclass(frozen=True)
class Closed:
    """counted: the result ended the run's attempt; else why not. state: the run's outcome when it has one; none: it is tried again."""

    counted: bool
    why: str
    state: Outcome | None
    handler_name: str = ""
    request_id: str = ""


def close(session: Session, result: Result, mail: MailRules = DEFAULT, trace: str = "") -> Closed:
    """Closes the run with the result and puts its email into the outbox, if the result's lease is the present one.

    A result that comes twice, or of a lease that was lost, changes nothing and sends nothing. trace: the run's own traceparent, under
    which its email goes out; '' leaves what the run was made under.
    """
    query = select(RunRow).where(RunRow.id == result.run_id)
    if is_postgresql(session):
        query = query.with_for_update()
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        return Closed(False, "there is no such run", None)
    name = session.scalar(select(HandlerRow.name).where(HandlerRow.id == row.handler_id)) or ""
    if row.state not in (RUNNING, REPORTED):
        state = Outcome(row.state) if row.state in set(Outcome) else None
        return Closed(False, f"the run is {row.state}", state, name, row.request_id)
    if not lease_counts(row, result.lease_id):
        return Closed(False, "its lease was lost; another has the run", None, name, row.request_id)
    now = now_ms(session)
    row.text, row.log, row.log_truncated = storable(result.text), storable(result.log), result.log_truncated
    uploads = add_files(session, row, result.uploads, now)
    row.uploads = json.dumps(json.loads(row.uploads) + [dataclasses.asdict(upload) for upload in uploads])
    row.started_at_ns, row.ended_at_ns = result.started_at_ns, result.ended_at_ns
    row.cpu_s, row.peak_memory_bytes = result.cpu_s, result.peak_memory_bytes
    error = result.error
    if error is not None:
        error = dataclasses.replace(
            error, type=storable(error.type), message=storable(error.message), traceback=storable(error.traceback)
        )
    row.error_type, row.error_message, row.error_traceback = (
        (error.type, error.message, error.traceback) if error is not None else (None, None, None)
    )  # of a run that is tried again too: of its last attempt
    end_attempt(session, row, now, _how(result.outcome, error), result.started_at_ns > 0)
    if result.outcome in RETRIED and (wait_ms := _retry_after_ms(session, row)) is not None:
        row.retried += 1
        requeue(row, now, now + wait_ms)
        session.flush()
        return Closed(
            True, f"attempt {row.claims} {result.outcome.value}; it is tried again", None, name, row.request_id
        )
    row.traceparent = trace or row.traceparent
    key_refused = note_refused(session, row, result, now)
    close_run(session, row, result.outcome, now, mail, error, key_refused)
    return Closed(True, "", result.outcome, name, row.request_id)


def _how(outcome: Outcome, error: RunError | None) -> str:
    """How an attempt ended, in one line."""
    said = (error.message.strip().splitlines() or [""])[0] if error is not None else ""
    what = ": ".join(filter(None, [error.type, said])) if error is not None else ""
    return ": ".join(filter(None, [outcome.value, what]))[:500]


def _retry_after_ms(session: Session, row: RunRow) -> int | None:
    """How long until the run's next attempt; None when its handler wants no more."""
    version = session.get_one(HandlerVersionRow, (row.handler_id, row.handler_version))
    return int(version.retry_delay_s * 1000) if row.retried < version.retries else None
