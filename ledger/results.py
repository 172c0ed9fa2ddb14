"""Result -> run closed, once, under its present lease."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.claims import end_attempt, lease_counts
from ledger.engine import is_postgresql, now_ms, storable
from ledger.files import add_files
from ledger.notify import close_run
from ledger.rules import MailRules
from ledger.tables import REPORTED, RUNNING, HandlerRow, RunRow
from schemas.records import Outcome, Result

DEFAULT = MailRules()


@dataclass(frozen=True)
class Closed:
    """counted: the result closed the run; else why not. state: the run's outcome when it has one."""

    counted: bool
    why: str
    state: Outcome | None
    handler_name: str = ""
    request_id: str = ""


def close(session: Session, result: Result, mail: MailRules = DEFAULT) -> Closed:
    """Closes the run with the result and puts its email into the outbox, if the result's lease is the present one.

    A result that comes twice, or of a lease that was lost, changes nothing and sends nothing.
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
    row.uploads = json.dumps([dataclasses.asdict(upload) for upload in uploads])
    row.started_at_ns, row.ended_at_ns = result.started_at_ns, result.ended_at_ns
    row.cpu_s, row.peak_memory_bytes = result.cpu_s, result.peak_memory_bytes
    end_attempt(session, row, now, result.outcome.value, result.started_at_ns > 0)
    error = result.error
    if error is not None:
        error = dataclasses.replace(
            error, type=storable(error.type), message=storable(error.message), traceback=storable(error.traceback)
        )
    close_run(session, row, result.outcome, now, mail, error)
    return Closed(True, "", result.outcome, name, row.request_id)
