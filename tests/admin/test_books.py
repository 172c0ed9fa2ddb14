"""Replays, matches, reconciliation and emails, as an operator meets them."""

import json
import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import text

from dispatcher.dispatch import Dispatch
from ledger import Ledger
from ledger.handlers import HandlerView
from ledger.rules import Rules
from stream.memory import MemoryBroker

from .conftest import HOOK, call, told

Handler = Callable[..., HandlerView]


def an_event(ledger: Ledger, broker: MemoryBroker, *tags: str) -> str:
    """Published, consumed and dispatched; its RequestID."""
    request_id = str(uuid.uuid4())
    body = {
        "DataSets": [],
        "File": "a.zip",
        "RequestID": request_id,
        "SubmittedAt": "2020-10-29T21:58:15Z",
        "Tags": tags,
    }
    broker.producer().send(HOOK, json.dumps(body).encode(), key=request_id.encode())
    message = broker.messages(HOOK)[-1]
    assert Dispatch(ledger, broker.producer(), Rules()).handle([message]) == []
    broker.commits["eventproc-dispatcher"][(HOOK, 0)] = message.offset + 1
    return request_id


def test_a_replay_is_listed_first_and_made_then(ledger: Ledger, broker: MemoryBroker, handler: Handler) -> None:
    handler("old", "north")
    request_id = an_event(ledger, broker, "north")
    new = handler("new")

    dry = told("replay", "--since", "1h", "--handler", str(new.id), "--dry-run")
    assert [(run["handler"], run["why"], run["replay_of"]) for run in dry["runs"]] == [
        ("new", "has no tags, so it takes every event", None)
    ]
    assert "2 runs made" in call("replay", "--event", request_id)
    again = told("replay", "--event", request_id)
    assert all(run["replay_of"] for run in again["runs"])
    repeated = told("replay", "--event", request_id, "--replay-id", again["replay_id"])
    assert all(run["was_there"] for run in repeated["runs"])


def test_a_replay_says_what_is_wrong_with_its_options(ledger: Ledger, handler: Handler) -> None:
    assert "which events?" in call("replay", code=2)
    assert "'yesterday' is no time" in call("replay", "--since", "yesterday", code=2)
    assert "'x' is no UUID" in call("replay", "--event", "x", code=2)
    assert "no hook is called 'x'; there are: ctingress.on_complete" in call(
        "replay", "--since", "1h", "--hook", "x", code=2
    )
    assert "handler 9 was removed or never was" in call("replay", "--since", "1h", "--handler", "9", code=1)


def test_matches_are_told_with_their_reasons(ledger: Ledger, broker: MemoryBroker, handler: Handler) -> None:
    handler("north", "north")
    request_id = an_event(ledger, broker, "north")
    handler("south", "south")

    found = told("matches", "--event", request_id)
    assert [one["name"] for one in found["met"]] == ["north"]
    assert [(one["name"], one["matches"]) for one in found["now"]] == [("north", True), ("south", False)]
    assert "wants one of south; the event has north" in call("matches", "--tags", "north")
    assert "give --event REQUEST_ID, or --tags a,b" in call("matches", code=2)


def test_books_that_add_up_say_so_and_others_name_what_does_not(
    ledger: Ledger, broker: MemoryBroker, handler: Handler
) -> None:
    handler("h", "north")
    request_id = an_event(ledger, broker, "north")
    assert "Everything adds up." in call("reconcile", "--topics")

    with ledger.write() as session:
        session.execute(text("DELETE FROM run"))
    found = told("reconcile", code=1)
    assert [problem["kind"] for problem in found["problems"]] == ["event_without_run"]
    assert request_id in call("reconcile", code=1)

    with ledger.write() as session:
        session.execute(text("DELETE FROM event"))
    (lost,) = told("reconcile", "--topics", code=1)["problems"]
    assert lost["kind"] == "event_lost" and lost["names"] == [f"{HOOK}/0/0: RequestID {request_id}"]


def test_emails_that_were_given_up_are_listed_with_the_reason_and_can_be_tried_again(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(
            text(
                "INSERT INTO notification (message_id, recipient, kind, state, created_at_ms, not_before_ms, tries, reason) "
                "VALUES ('m', 'bob@example.com', 'failure', 'given_up', 1, 1, 250, '550 no such user')"
            )
        )
    (one,) = told("emails", "list", "--state", "given_up")
    assert (one["recipient"], one["tries"], one["reason"]) == ("bob@example.com", 250, "550 no such user")

    assert "1 of 1 will be tried again" in call("emails", "retry", str(one["id"]))
    assert [mail["state"] for mail in told("emails", "list")] == ["pending"]
    assert "the others were not given up" in call("emails", "retry", str(one["id"]), code=1)


def test_a_ledger_that_is_away_is_for_later(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")

    assert "try again later" in call("reconcile", code=75)
