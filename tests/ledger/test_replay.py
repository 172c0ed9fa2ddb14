"""Past events once more, on both databases: new runs by the present handlers, that point to the old ones."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger import Ledger
from ledger.events import record_events
from ledger.handlers import remove
from ledger.replay import CannotReplay, Page, Planned, Selection, check, plan, replay
from ledger.rules import Rules
from ledger.runs import counts, runs
from schemas.events import Event
from schemas.records import Outcome
from tests.invited import due
from tests.ledger.conftest import HOOK, Handler, Queued, an_event, ended, leased, match_of

RULES = Rules()


def recorded(ledger: Ledger, *events: Event, matches: tuple[object, ...] = ()) -> None:
    with ledger.write() as session:
        record_events(session, [(event, [match_of(m) for m in matches]) for event in events], RULES)  # type: ignore[arg-type]


def made(ledger: Ledger, selection: Selection, replay_id: str = "again") -> Page:
    with ledger.write() as session:
        return replay(session, selection, replay_id)


def test_an_event_runs_again_by_the_handlers_that_match_now_and_the_new_runs_point_to_the_old(
    ledger: Ledger, handler: Handler
) -> None:
    event, first = an_event(), handler("first")
    recorded(ledger, event, matches=(first,))
    handler("first", blob=b"corrected")
    handler("late", tags=())
    handler("elsewhere", tags=("south",))
    with ledger.read() as session:
        (old,) = runs(session, event.request_id)

    page = made(ledger, Selection(HOOK, event.request_id))

    assert [(one.handler_name, one.match.version, one.why, one.replay_of) for one in page.planned] == [
        ("first", 1, "shares north", old.run_id),
        ("late", 0, "has no tags, so it takes every event", None),
    ]
    with ledger.write() as session:
        assert len(runs(session, event.request_id)) == 3
        invited = {invitation.run_id for invitation in due(session, RULES, 10).invitations}
        assert invited == {one.run_id for one in page.planned}


def test_a_plan_changes_nothing_and_a_replay_made_twice_makes_its_runs_once(ledger: Ledger, handler: Handler) -> None:
    event = an_event()
    recorded(ledger, event, matches=(handler(),))
    selection = Selection(HOOK, event.request_id)
    with ledger.read() as session:
        planned = plan(session, selection, "again")
        assert counts(session) == {"queued": 1}

    first, second = made(ledger, selection), made(ledger, selection)
    other = made(ledger, selection, "another")

    assert [one.run_id for one in planned.planned] == [one.run_id for one in first.planned]
    assert [one.there for one in first.planned + second.planned] == [False, True]
    assert [one.replay_of for one in second.planned] == [one.replay_of for one in first.planned]
    assert other.planned[0].replay_of == first.planned[0].run_id
    with ledger.read() as session:
        assert counts(session) == {"queued": 3}


def test_a_replay_that_goes_on_after_another_replay_makes_nothing_twice(ledger: Ledger, handler: Handler) -> None:
    events = [an_event(), an_event()]
    recorded(ledger, *events, matches=(handler(),))
    everything = Selection(HOOK, since_ms=0)
    with ledger.write() as session:  # broke off after its first page
        first = replay(session, everything, "again", limit=1)
    made(ledger, everything, "another")

    went_on = made(ledger, everything, "again")

    assert [one.there for one in went_on.planned] == [True, False]
    assert went_on.planned[0].replay_of == first.planned[0].replay_of
    with ledger.read() as session:
        assert counts(session) == {"queued": 2 + 2 + 2}


def test_a_replay_of_what_failed_or_of_what_never_ran_leaves_the_rest_alone(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    well, badly, _waiting = queued(3)
    ended(ledger, leased(ledger, well.run_id, nonce="a"))
    ended(ledger, leased(ledger, badly.run_id, nonce="b"), Outcome.TIMED_OUT)
    new = handler("new")

    failed = made(ledger, Selection(HOOK, since_ms=0, only="failed"), "again")
    missing = made(ledger, Selection(HOOK, since_ms=0, only="missing"), "and again")

    assert [one.replay_of for one in failed.planned] == [badly.run_id]
    assert [one.match.handler_id for one in missing.planned] == [new.id] * 3
    repeated = made(ledger, Selection(HOOK, since_ms=0, only="failed"), "again")
    assert [(one.run_id, one.there) for one in repeated.planned] == [(failed.planned[0].run_id, True)]
    with ledger.read() as session:
        assert counts(session) == {"queued": 1 + 1 + 3, "succeeded": 1, "timed_out": 1}


def test_a_new_handler_runs_on_past_archives_of_a_time_range_page_by_page(ledger: Ledger, handler: Handler) -> None:
    events = [an_event() for _ in range(7)]
    recorded(ledger, *events, matches=(handler("old"),))
    outside = an_event()
    recorded(ledger, outside)
    with ledger.write() as session:
        session.execute(
            text("UPDATE event SET received_at_ms = received_at_ms - 86400000 WHERE request_id = :id"),
            {"id": outside.request_id},
        )
        since = session.scalar(text("SELECT max(received_at_ms) - 1000 FROM event"))
    new = handler("new")
    selection = Selection(HOOK, since_ms=since, handler_id=new.id)

    found: list[Planned] = []
    after: tuple[int, str] | None = None
    pages = 0
    while pages == 0 or after is not None:
        with ledger.write() as session:
            page = replay(session, selection, "month", after, limit=3)
        found.extend(page.planned)
        after, pages = page.after, pages + 1

    assert pages == 3
    assert {one.request_id for one in found} == {event.request_id for event in events}
    assert {one.handler_name for one in found} == {"new"}


def test_what_is_not_there_cannot_be_replayed(ledger: Ledger, handler: Handler) -> None:
    gone = handler()
    with ledger.write() as session:
        remove(session, gone.id, "alice", admin=False)
        with pytest.raises(CannotReplay, match=r"handler \d+ was removed or never was"):
            check(session, Selection(HOOK, handler_id=gone.id))
        with pytest.raises(CannotReplay, match="has the RequestID nowhere"):
            check(session, Selection(HOOK, "nowhere"))


def test_a_replay_whose_command_is_killed_around_a_commit_goes_on_with_its_id_and_makes_every_run_once(
    ledger: Ledger, url: str, handler: Handler, tmp_path: Path
) -> None:
    # given more events than are replayed in one transaction
    events = [an_event() for _ in range(1200)]
    recorded(ledger, *events, matches=(handler(),))
    replay_id, kills = str(uuid.uuid4()), tmp_path / "kills"
    command = [sys.executable, "-m", "admin", "replay", "--since", "1h", "--replay-id", replay_id, "--json"]
    # with this seed: before the second page's commit, then after it
    faults = {"EVENTPROC_FAULTS": "0.25", "EVENTPROC_FAULTS_SEED": "143", "EVENTPROC_FAULTS_LOG": str(kills)}
    # when the command dies and is given again until it comes to its end
    died: list[int] = []
    while len(died) < 10:
        done = subprocess.run(
            command, env={**os.environ, **faults, "EVENTPROC_LEDGER_URL": url}, capture_output=True, check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        died.append(made_by(ledger, replay_id))
    # then it died on the way, and there is one new run for each event
    assert died == [500, 1000] and [word for line in kills.read_text().splitlines() for word in line.split()[:2]] == [
        "admin",
        "ledger.before_commit",
        "admin",
        "ledger.after_commit",
    ]
    assert [run["was_there"] for run in json.loads(done.stdout)["runs"]].count(True) == 1000
    assert made_by(ledger, replay_id) == len(events)
    with ledger.read() as session:
        assert counts(session) == {"queued": 2 * len(events)}


def made_by(ledger: Ledger, replay_id: str) -> int:
    """How many events the replay has made a run for, one each."""
    query = text("SELECT count(*), count(DISTINCT request_id) FROM run WHERE replay_id = :id")
    with ledger.read() as session:
        runs, events = session.execute(query, {"id": replay_id}).one()
    assert runs == events
    return int(runs)
