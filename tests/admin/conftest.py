"""The command line over a ledger and a broker in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from admin import desk, say
from admin.__main__ import app
from ledger import Ledger
from ledger.handlers import HandlerView, NewHandler, register
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.migrated import migrated

HOOK = "ctingress.on_complete"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    url = migrated(tmp_path / "ledger.db")
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", url)
    opened = Ledger.open(url)
    yield opened
    opened.close()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    memory = MemoryBroker()
    memory.admin().ensure_topics(topics(("py3.11",), 1), 1, 8 * 1024 * 1024)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr(desk, "open_broker", lambda settings: memory)
    return memory


@pytest.fixture
def handler(ledger: Ledger) -> Callable[..., HandlerView]:
    def make(name: str, *tags: str, **changed: Any) -> HandlerView:
        new = {
            "hook": HOOK, "name": name, "owner": "alice", "tags": tags, "notify_on_success": "ok@example.com",
            "notify_on_failure": "bad@example.com", "runtime": "py3.11", "blob": b"pickle", **changed,
        }  # fmt: skip
        with ledger.write() as session:
            return register(session, NewHandler(**new), "alice")

    return make


def called(*arguments: str, code: int = 0) -> Any:
    """Calls eventproc-admin in this process; the result has stdout, stderr and output, which is both."""
    say.out.width = 200  # it was made with the width of whoever started the tests
    try:
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    finally:  # its log went to the runner's stderr, which is closed now
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def call(*arguments: str, code: int = 0) -> str:
    """The same; all that it printed."""
    return str(called(*arguments, code=code).output)


def told(*arguments: str, code: int = 0) -> Any:
    """The same with --json, read."""
    return json.loads(called(*arguments, "--json", code=code).stdout)
