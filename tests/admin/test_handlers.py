"""eventproc-admin handlers: a user's handlers when the user leaves."""

from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet

from ledger import Ledger
from ledger.credentials import seal
from tests.admin.conftest import call, told


def give_key(url: str, owner: str) -> None:
    sealing = Ledger.open(url, [Fernet.generate_key().decode()])
    with sealing.write() as session:
        seal(session, sealing, owner, "K" * 40)
    sealing.close()


def names(*arguments: str) -> list[tuple[str, str]]:
    return [(one["name"], one["owner"]) for one in told("handlers", *arguments)]


def test_a_dry_run_names_what_would_change_and_changes_nothing(ledger: Ledger, handler: Callable[..., Any]) -> None:
    handler("mine")
    give_key(ledger.engine.url.render_as_string(), "bob")
    for command in (("transfer", "--to", "bob"), ("pause",), ("purge",)):
        assert names(*command, "--owner", "alice", "--dry-run") == [("mine", "alice")]

    assert [(one["owner"], one["paused"]) for one in told("handlers", "list")] == [("alice", False)]


def test_handlers_go_to_who_has_a_sealed_key_and_to_nobody_else(ledger: Ledger, handler: Callable[..., Any]) -> None:
    handler("mine")
    assert "carol has no sealed key" in call("handlers", "transfer", "--owner", "alice", "--to", "carol", code=1)
    give_key(ledger.engine.url.render_as_string(), "bob")

    assert names("transfer", "--owner", "alice", "--to", "bob") == [("mine", "bob")]

    assert names("list", "--owner", "alice") == []
    (one,) = told("handlers", "list", "--owner", "bob")
    assert one["updated_by"].startswith("admin:")


def test_a_users_handlers_are_paused_resumed_and_removed(ledger: Ledger, handler: Callable[..., Any]) -> None:
    handler("mine")
    handler("bobs", owner="bob")

    call("handlers", "pause", "--owner", "alice")
    assert [(one["name"], one["paused"]) for one in told("handlers", "list")] == [("mine", True), ("bobs", False)]
    call("handlers", "resume", "--owner", "alice")
    assert not any(one["paused"] for one in told("handlers", "list"))
    call("handlers", "purge", "--owner", "alice")
    assert names("list") == [("bobs", "bob")]
