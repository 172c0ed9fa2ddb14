"""Runs in the ledger of a registry under test: made, claimed as an executor does, ended as the notifier does."""

from __future__ import annotations

import uuid
from typing import Any

from ledger.events import Match, record_events
from ledger.results import close
from schemas.events import Event
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated import executorapi_pb2 as executor
from schemas.records import Outcome, Result
from tests.registry_server import HOOK, TOKEN, Running, bearer


def make_runs(registry: Running, handler: api.Handler, count: int = 1, owner: str = "alice") -> list[str]:
    """Of a handler, one event each; returns their ids."""
    match = Match(handler.id, handler.version, owner, handler.runtime)
    events = [Event(HOOK, str(uuid.uuid4()), ("north",), "a.zip", "", {"File": "a.zip"}) for _ in range(count)]
    with registry.ledger.write() as session:
        recorded = record_events(session, [(event, [match]) for event in events])
    return [one.run_id for record in recorded for one in record.invitations]


def claim(registry: Running, run_id: str, nonce: str = "first") -> executor.Lease:
    """A lease of the run."""
    request = executor.ClaimRequest(boot_id="boot", nonce=nonce, executor="ex-1", run_ids=[run_id])
    (answer,) = registry.executors.Claim(request, metadata=bearer(TOKEN)).answers
    return executor.Lease(run_id=run_id, lease_id=answer.run.lease_id)


def end(registry: Running, lease: executor.Lease, outcome: Outcome = Outcome.SUCCEEDED, **more: Any) -> None:
    """Ends the run, or its attempt; more: fields of Result."""
    with registry.ledger.write() as session:
        result = Result(lease.run_id, lease.lease_id, outcome, "ex-1", **more)
        assert close(session, result).counted


def printed(registry: Running, lease: executor.Lease, at: int, text: str) -> int:
    """Tells of what the run has printed after `at` characters; returns how many there are now."""
    asked = executor.AppendLogRequest(printed=[executor.Printed(lease=lease, at=at, text=text)])
    return int(registry.executors.AppendLog(asked, metadata=bearer(TOKEN)).at[0])
