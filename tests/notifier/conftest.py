"""Runs and mails as the ledger hands them out, and SMTP servers good and bad."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ledger import Ledger
from ledger.claims import Claimant, ClaimedRun, claim
from ledger.events import Match, record_events
from ledger.handlers import NewHandler, Options, register
from ledger.outbox import Mail
from ledger.rules import Rules
from ledger.runs import AttemptView, RunView
from ledger.tables import CredentialRow
from notifier.settings import NotifierSettings
from schemas.events import event_from
from schemas.records import Outcome, Result, RunError
from tests.migrated import migrated

START_NS = 1591844350000000000
PLAIN = Options()

EVENT: dict[str, Any] = {
    "DataSets": [
        {
            "Name": "/north/R108 - Fault 7.cfg",
            "Success": True,
            "Error": "",
            "Streams": [{"Uuid": "u", "StartNs": START_NS, "EndNs": START_NS + 10**9, "ProcessedAtNs": START_NS}] * 24,
        },
        {"Name": "/south/broken.cfg", "Success": False, "Error": "no DAT file beside it", "Streams": None},
    ],
    "File": "feeder7.zip",
    "RequestID": "8e5a2a6e-6a32-4a54-9d5f-1d6f2a2b7c11",
    "SubmittedAt": "2020-10-29T21:58:15.09246084Z",
    "Tags": ["fault"],
    "Recordings": [
        {
            "Name": "/north/R108 - Fault 7.cfg",
            "Station": "North Anna #1",
            "Device": "R108",
            "SampleRates": [{"RateHz": 4800.0, "EndSample": 4800}],
            "TriggerNs": START_NS + 123456789,
            "UtcOffsetSource": "assumed",
            "TimeQuality": None,
            "MissingSamples": 3,
        }
    ],
}

TRACEBACK = """Traceback (most recent call last):
  File "notebook.ipynb", line 12, in fault_report
    ratio = peak / nominal
ZeroDivisionError: float division by zero
"""


def attempt(executor: str, reason: str, begun: bool = True) -> AttemptView:
    return AttemptView(executor, START_NS // 10**6, START_NS // 10**6 + 1000, begun, reason)


def make_run(event: dict[str, Any] | None = None, **changes: Any) -> RunView:
    run = RunView(
        run_id="5f0c2c55-55cb-5a1e-9a1c-0d6f9f3d2b10",
        handler_name="fault_report",
        handler_id=12,
        handler_version=3,
        hook="ctingress.on_complete",
        request_id=EVENT["RequestID"],
        owner="alice",
        state=Outcome.SUCCEEDED,
        text="Fault current 4.21 kA RMS on phase A for 83 ms",
        error=None,
        log="reading 24 streams\ndone\n",
        log_truncated=False,
        uploads=(),
        queued_at_ms=START_NS // 10**6,
        started_at_ns=START_NS + 35_000_000,
        ended_at_ns=START_NS + 1_275_000_000,
        cpu_s=0.9,
        peak_memory_bytes=150_000_000,
        attempt=1,
        attempts=(attempt("executor-a", "succeeded"),),
        replay_of=None,
        event_subject="feeder7.zip",
        event_tags=("fault",),
        event_body=json.dumps(EVENT if event is None else event).encode(),
        source="def fault_report(**kwargs): ...\n",
        first_line=10,
        runtime="py3.11",
    )
    return dataclasses.replace(run, **changes)


def make_mail(*runs: RunView, **changes: Any) -> Mail:
    runs = runs or (make_run(),)
    kind = "success" if runs[0].state == Outcome.SUCCEEDED else "failure"
    mail = Mail(id=1, message_id="1.abc", recipient="alice@example.com", kind=kind, runs=runs, tries=1)
    return dataclasses.replace(mail, **changes)


def raised() -> RunError:
    return RunError("ZeroDivisionError", "float division by zero", TRACEBACK)


@pytest.fixture
def run() -> Callable[..., RunView]:
    """Makes a run; keyword arguments change its fields, event its event."""
    return make_run


@pytest.fixture
def mail() -> Callable[..., Mail]:
    """Makes a mail for the runs given, or for one that succeeded."""
    return make_mail


@pytest.fixture
def error() -> RunError:
    """What a handler raised."""
    return raised()


@contextmanager
def serving(protocol: Callable[[], Any], port: int = 0, **options: Any) -> Iterator[int]:
    """An asyncio server in a thread of its own; gives its port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", port, **options))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()


def make_settings(port: int, **changes: Any) -> NotifierSettings:
    given: dict[str, Any] = {
        "ledger_url": "sqlite://",
        "smtp_host": "127.0.0.1",
        "smtp_port": port,
        "smtp_security": "none",
        "smtp_timeout_s": 5.0,
        "sender": "eventproc@example.com",
        "mail_domains": "*",
    }
    return NotifierSettings(**(given | changes))


@pytest.fixture
def smtp() -> Callable[..., Any]:
    """serving(protocol, **options), a context manager."""
    return serving


@pytest.fixture
def settings() -> Callable[..., NotifierSettings]:
    """Settings for a server at that port; keyword arguments change them."""
    return make_settings


class Book:
    """A real ledger with runs that an executor has claimed."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def claimed(
        self,
        name: str = "fault_report",
        success: str = "alice@example.com",
        failure: str = "bob@example.com",
        options: Options = PLAIN,
        **event_fields: Any,
    ) -> Result:
        """Registers a handler, dispatches an event to it and claims the run; returns how it ended well, as the executor says it."""
        hook = "ctingress.on_complete"
        new = NewHandler(
            hook=hook,
            name=name,
            owner="alice",
            tags=(),
            notify_on_success=success,
            notify_on_failure=failure,
            runtime="py3.11",
            blob=b"blob",
            python_version="3.11.7",
            dill_version="0.4.0",
            packages={},
            source="def fault_report(**kwargs): ...",
            first_line=1,
            file_name="notebook.ipynb",
            options=options,
        )
        event = event_from(hook, {**EVENT, "RequestID": str(uuid.uuid4()), **event_fields})
        with self.ledger.write() as session:
            handler = register(session, new, "alice")
            match = Match(handler.id, handler.version, "alice", "py3.11")
            (recorded,) = record_events(session, [(event, [match])])
            session.merge(CredentialRow(owner="alice", sealed=b"", updated_at_ms=0))
        (invitation,) = recorded.invitations
        return self._lease(invitation.run_id)

    def claimed_again(self, result: Result) -> Result:
        """Claims a run that is queued again; returns how it ended well."""
        return self._lease(result.run_id)

    def _lease(self, run_id: str) -> Result:
        claimant = Claimant("boot", uuid.uuid4().hex, "executor-a")
        with self.ledger.write() as session:
            ((_, answer),) = claim(session, claimant, [run_id], Rules())
        assert isinstance(answer, ClaimedRun)
        return Result(
            run_id,
            answer.lease_id,
            Outcome.SUCCEEDED,
            "executor-a",
            text="Fault current 4.21 kA",
            log="reading\n",
            started_at_ns=START_NS,
            ended_at_ns=START_NS + 10**9,
        )

    def set_back_mails(self) -> None:
        """Makes every email that waits due."""
        with self.ledger.write() as session:
            session.execute(text("UPDATE notification SET not_before_ms = id WHERE state = 'pending'"))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A ledger in SQLite, and what is needed to have runs in it."""
    ledger = Ledger.open(migrated(tmp_path / "ledger.db"))
    yield Book(ledger)
    ledger.close()
