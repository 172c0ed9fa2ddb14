"""An operator sees what is too old before it goes, and what room the rest takes."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import text

from ledger import Ledger
from ledger.handlers import HandlerView
from tests.admin.conftest import call, told


def test_what_is_too_old_is_told_and_then_removed(ledger: Ledger, handler: Callable[..., HandlerView]) -> None:
    handler("h", blob=b"first")
    handler("h", blob=b"second")
    with ledger.write() as session:
        session.execute(text("UPDATE handler_version SET created_at_ms = 0"))

    assert told("retain", "--dry-run")["removed"]["handler_versions"] == 1
    assert told("retain", "--only", "handler_versions")["removed"] == {"handler_versions": 1}
    again = told("retain")

    assert set(again["removed"].values()) == {0}
    assert again["kept_bytes"]["handlers"] > 0
    with ledger.read() as session:
        assert session.scalar(text("SELECT count(*) FROM handler_version")) == 1


def test_a_kind_that_is_none_is_refused_with_those_there_are(ledger: Ledger) -> None:
    assert "none of texts, emails, runs" in call("retain", "--only", "logs", code=2)
