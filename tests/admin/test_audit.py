"""eventproc-admin audit, and that what operators do is in it."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ledger import Ledger
from ledger.audit import HANDLER, USER, Act, Actor, note
from tests.admin.conftest import call, called, told
from tests.admin.test_handlers import give_key


def test_what_an_operator_does_with_a_users_handlers_is_noted_for_each(
    ledger: Ledger, handler: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = str(handler("one").id), str(handler("two").id)
    give_key(ledger.engine.url.render_as_string(), "bob")
    call("handlers", "pause", "--owner", "alice")
    call("handlers", "resume", "--owner", "alice", "--dry-run")
    call("handlers", "transfer", "--owner", "alice", "--to", "bob")
    call("handlers", "purge", "--owner", "bob")

    found = told("audit")[::-1]

    assert [(entry["act"], entry["kind"], entry["thing"]) for entry in found] == [
        ("pause", "handler", one), ("pause", "handler", two), ("transfer", "handler", one), ("transfer", "handler", two),
        ("remove", "handler", one), ("remove", "handler", two), ("purge", "owner", "bob"),
    ]  # fmt: skip
    assert {(entry["who"], entry["role"], entry["peer"]) for entry in found} == {
        (getpass.getuser(), "operator", socket.gethostname())
    }
    assert found[2]["detail"] == {"name": "one", "of": "alice", "to": "bob"}


def test_an_act_is_a_line_in_the_log_beside_the_commands_answer(ledger: Ledger, handler: Callable[..., Any]) -> None:
    handler("one")

    result = called("handlers", "pause", "--owner", "alice", "--json")

    assert [one["name"] for one in json.loads(result.stdout)] == ["one"]
    (line,) = [json.loads(line) for line in result.stderr.splitlines()]
    assert (line["event"], line["act"], line["station"], line["level"]) == ("audit", "pause", "admin", "info")


def test_keys_sealed_anew_and_what_was_removed_for_its_age_are_noted(
    ledger: Ledger, handler: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler("one")
    handler("one")
    with ledger.write() as session:
        note(session, Actor("alice", USER), Act.REGISTER, HANDLER, 1)
    monkeypatch.setenv("EVENTPROC_SEAL_KEYS", Fernet.generate_key().decode())
    monkeypatch.setenv("EVENTPROC_KEEP_HANDLER_VERSIONS_DAYS", "0.00000001")
    call("reseal")
    call("retain")

    retained, resealed, _ = told("audit")

    assert (resealed["act"], resealed["thing"], resealed["detail"]) == ("reseal", "keys", {"sealed": 0, "lost": 0})
    assert (retained["act"], retained["detail"]["handler_versions"]) == ("retain", 1)


def test_acts_are_told_as_they_are_asked_for(ledger: Ledger) -> None:
    with ledger.write() as session:
        note(session, Actor("alice", USER, "192.0.2.7"), Act.REGISTER, HANDLER, 7, name="\x1b[31mh", version=2)
        note(session, Actor("bob", USER), Act.PAUSE, HANDLER, 8)

    def things(*arguments: str) -> list[str]:
        return [entry["thing"] for entry in told("audit", *arguments)]

    assert things() == ["8", "7"]
    assert things("--who", "alice") == things("--act", "register") == things("--handler", "7") == ["7"]
    assert things("--since", "1h") == ["8", "7"] and things("--until", "1h") == []
    assert things("--limit", "1") == ["8"]
    shown = call("audit", "--limit", "1")
    assert f"The next page: --before {told('audit', '--limit', '1')[0]['id']}" in shown
    whole = call("audit")
    assert "192.0.2.7" in whole and "version 2" in whole and "\x1b" not in whole
    assert "read-code" in call("audit", "--act", "dance", code=2)
