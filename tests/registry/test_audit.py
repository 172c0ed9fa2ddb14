"""What users do through the registry is in the audit log: who, as what, on which, from where; also what admins read of others."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from ledger.audit import Entry, Wanted, entries
from registry.calls import address
from schemas.generated import eventprocapi_pb2 as api
from tests.registry.test_versions import an_event, ask, of
from tests.registry_server import Running, refusal


def acts(registry: Running) -> list[Entry]:
    """The oldest first."""
    with registry.ledger.read() as session:
        return entries(session, Wanted(), 100)[::-1]


def told(registry: Running) -> list[tuple[str, str, str, str]]:
    return [(one.who, one.act, one.kind, one.thing) for one in acts(registry)]


def test_what_changes_a_handler_is_noted_with_its_caller_and_where_the_call_came_from(registry: Running) -> None:
    handler = registry.register().handler
    number = str(handler.id)
    registry.register()
    ask(registry, "Rollback", handler=of(handler), version=0)
    ask(registry, "Pause", user="root", handler=of(handler))
    ask(registry, "Resume", handler=of(handler))
    ask(registry, "Rekey")
    an_event(registry, handler)
    for _ in range(2):  # the second makes nothing
        ask(registry, "Replay", handler=of(handler), since_ms=1, replay_id=str(uuid.UUID(int=7)))
    ask(registry, "Replay", handler=of(handler), since_ms=1, dry_run=True)
    registry.users.Deregister(api.DeregisterRequest(id=handler.id), metadata=(("authorization", "Bearer " + "C" * 40),))

    assert told(registry) == [
        ("alice", "register", "handler", number), ("alice", "register", "handler", number),
        ("alice", "rollback", "handler", number), ("root", "pause", "handler", number),
        ("alice", "resume", "handler", number), ("alice", "rekey", "owner", "alice"),
        ("alice", "replay", "handler", number), ("root", "remove", "handler", number),
    ]  # fmt: skip
    assert {(one.who, one.role, one.peer) for one in acts(registry)} == {
        ("alice", "user", "127.0.0.1"), ("root", "admin", "127.0.0.1")
    }  # fmt: skip
    details = [one.detail for one in acts(registry)]
    assert details[1] == {"name": "report", "hook": "ctingress.on_complete", "version": 1}
    assert (details[2]["to"], details[2]["version"]) == (0, 2)
    assert (details[6]["runs"], details[6]["replay_id"]) == (1, str(uuid.UUID(int=7)))
    assert details[7]["owner"] == "alice"


def test_reading_code_is_noted_whoever_reads_it(registry: Running) -> None:
    handler = registry.register(source="def report(): ...").handler
    ask(registry, "GetSource", handler=of(handler), version=-1)
    ask(registry, "GetSource", user="root", handler=of(handler), version=0, with_blob=True)

    read = [one for one in acts(registry) if one.act == "read-code"]
    assert [(one.who, one.detail["pickle"], one.detail["version"]) for one in read] == [
        ("alice", False, 0),
        ("root", True, 0),
    ]


def test_runs_are_their_owners_to_read_unnoted_and_an_admins_noted(registry: Running) -> None:
    handler = registry.register().handler
    an_event(registry, handler)
    (run,) = ask(registry, "ListRuns").runs
    ask(registry, "GetRun", id=run.id)
    ask(registry, "ReadLog", id=run.id)
    assert [act for _, act, _, _ in told(registry)] == ["register"]

    for _ in range(3):  # as one who follows a log does
        ask(registry, "ReadLog", user="root", id=run.id)
    ask(registry, "GetRun", user="root", id=run.id)
    ask(registry, "ListRuns", user="root")
    ask(registry, "ListRuns", user="root", handler=of(handler))

    assert told(registry)[1:] == [
        ("root", "read-log", "run", run.id), ("root", "read-run", "run", run.id),
        ("root", "list-runs", "owner", "all"), ("root", "list-runs", "handler", str(handler.id)),
    ]  # fmt: skip
    assert acts(registry)[1].detail == {"owner": "alice"} and acts(registry)[3].detail == {"of": ["alice"]}


@pytest.mark.parametrize("call", ["Pause", "GetSource", "Rollback"])
def test_what_is_refused_is_not_noted(registry: Running, call: str) -> None:
    handler = registry.register().handler
    asked: dict[str, Any] = {} if call == "Pause" else {"version": 0}

    assert refusal(lambda: ask(registry, call, user="bob", handler=of(handler), **asked))[0] == "PERMISSION_DENIED"

    assert len(acts(registry)) == 1


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        ("ipv4:192.0.2.7:41234", "192.0.2.7"),
        ("ipv6:%5B2001:db8::7%5D:41234", "2001:db8::7"),
        ("ipv6:[::1]:41234", "::1"),
        ("unix:/run/registry.sock", "unix:/run/registry.sock"),
    ],
)
def test_a_peer_is_told_by_its_address(peer: str, told: str) -> None:
    assert address(peer) == told
