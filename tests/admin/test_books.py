"""Replays, matches, reconciliation and emails, as an operator meets them."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from dispatcher.dispatch import Dispatch
from ledger import Ledger
from ledger.handlers import HandlerView
from ledger.rules import Rules
from stream.memory import MemoryBroker

from .conftest import HOOK, call, called, told

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


def test_names_that_would_flood_a_terminal_or_steer_it_are_shown_harmless(
    ledger: Ledger, broker: MemoryBroker, handler: Handler
) -> None:
    handler("h")
    with ledger.write() as session:
        session.execute(
            text(
                "INSERT INTO event (hook, request_id, subject, submitted_at, tags, body, matches, received_at_ms)"
                " VALUES (:hook, :id, :subject, '', '[]', '', '[]', 5)"
            ),
            {"hook": HOOK, "id": str(uuid.uuid4()), "subject": "\x1b[2J[red]" + "x" * 1_000_000},
        )

    shown = call("replay", "--since", "1970-01-01", "--dry-run")

    assert "\x1b" not in shown and "[red]xxx" in shown and len(shown) < 5_000


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
    assert "Everything adds up." in call("reconcile")

    with ledger.write() as session:
        session.execute(text("DELETE FROM run"))
    found = told("reconcile", code=1)
    assert [problem["kind"] for problem in found["problems"]] == ["event_without_run"]
    assert request_id in call("reconcile", code=1)

    with ledger.write() as session:
        session.execute(text("DELETE FROM event"))
    (lost,) = told("reconcile", code=1)["problems"]
    assert lost["kind"] == "event_lost" and lost["names"] == [f"{HOOK}/0/0: RequestID {request_id}"]


def test_a_replay_tells_its_id_before_it_begins_and_a_dry_run_says_how_to_get_its_very_runs(
    ledger: Ledger, broker: MemoryBroker, handler: Handler
) -> None:
    handler("h")
    an_event(ledger, broker)

    dry = told("replay", "--since", "1h", "--dry-run")
    made = called("replay", "--since", "1h", "--replay-id", dry["replay_id"], "--json")

    assert made.stderr.startswith(f"replay {dry['replay_id']}: if it breaks off")
    assert [run["run_id"] for run in json.loads(made.stdout)["runs"]] == [run["run_id"] for run in dry["runs"]]
    assert told("replay", "--since", "1h", "--only", "failed")["runs"] == []
    assert told("replay", "--since", "1h", "--only", "missing")["runs"] == []
    call("replay", "--since", "1h", "--only", "nonsense", code=2)


def test_a_ledger_that_is_away_is_for_later(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")

    assert "try again later" in call("reconcile", code=75)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////nowhere/ledger.db", "there is no file /nowhere/ledger.db"),
        ("nonsense", "should be sqlite:////path or postgresql+psycopg://"),
        ("oracle7://x", "should be sqlite:////path or postgresql+psycopg://"),
    ],
)
def test_a_wrong_ledger_is_told_with_what_would_be_right(
    url: str, says: str, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", url)

    assert says in call("emails", "list", code=2)


def test_a_ledger_without_tables_or_of_another_release_is_left_alone(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ledger: Ledger
) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    assert "its tables are of revision 0000, not of" in call("emails", "list", code=2)
    (tmp_path / "empty.db").touch()
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", f"sqlite:///{tmp_path / 'empty.db'}")
    assert "there are no tables in it" in call("emails", "list", code=2)


def test_a_broker_that_is_away_is_for_later(ledger: Ledger, broker: MemoryBroker) -> None:
    broker.away = True

    assert "try again later" in call("dead-letters", "list", code=75)
    assert "try again later" in call("reconcile", code=75)
    assert "Everything adds up." in call("reconcile", "--no-topics")
