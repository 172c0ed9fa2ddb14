"""What users do with a handler after it was registered, over TLS: versions, code, back, pause, resume, replay, a new key."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from ledger.claims import Claimant, ClaimedRun, claim
from ledger.credentials import unseal
from ledger.events import Match, record_events
from ledger.handlers import matchable
from ledger.listing import Wanted, newest
from ledger.results import close
from ledger.rules import Rules
from schemas.events import Event
from schemas.generated import eventprocapi_pb2 as api
from schemas.records import KEY_REFUSED, Outcome, Result, RunError
from tests.registry_server import HOOK, KEYS, Running, bearer, pickled, refusal


def of(handler: api.Handler) -> api.HandlerRef:
    return api.HandlerRef(id=handler.id)


def ask(registry: Running, call: str, user: str = "alice", **asked: Any) -> Any:
    request = getattr(api, f"{call}Request")(**asked)
    return getattr(registry.users, call)(request, metadata=bearer(KEYS[user]), timeout=30)


def an_event(registry: Running, *handlers: api.Handler, tags: tuple[str, ...] = ("north",)) -> str:
    """An event in the ledger that met these handlers; returns its RequestID."""
    event = Event(HOOK, str(uuid.uuid4()), tags, "a.zip", "", {"File": "a.zip"})
    with registry.ledger.write() as session:
        record_events(session, [(event, [Match(h.id, h.version, h.created_by, h.runtime) for h in handlers])])
    return event.request_id


def refuse_key(registry: Running, handler: api.Handler) -> None:
    """Lets a run of the handler find that BTrDB refuses the key."""
    an_event(registry, handler)
    with registry.ledger.read() as session:
        (run,) = newest(session, Wanted(handler_id=handler.id, state="queued"), 10).runs
    with registry.ledger.write() as session:
        ((_, answer),) = claim(session, Claimant("boot", "nonce", "ex"), [run.run_id], Rules())
        assert isinstance(answer, ClaimedRun)
        error = RunError(KEY_REFUSED, "BTrDB refuses the API key: expired")
        assert close(session, Result(run.run_id, answer.lease_id, Outcome.REFUSED, "ex", error=error)).counted


def test_versions_and_their_code_are_their_owners_to_see(registry: Running) -> None:
    first = registry.register(source="def report(): ...", first_line=3, file_name="n.ipynb", tags=["a"]).handler
    registry.register(tags=["b"], options=api.Options(retries=2, notify="failures"))

    told = ask(registry, "ListVersions", handler=of(first)).versions
    old = ask(registry, "GetSource", handler=api.HandlerRef(name="report"), version=0, with_blob=True)
    present = ask(registry, "GetSource", handler=of(first), version=-1)

    assert [(one.version, one.present, list(one.tags), one.has_source) for one in told] == [
        (1, True, ["b"], False),
        (0, False, ["a"], True),
    ]
    assert (told[0].options.retries, told[0].options.notify, told[1].options.notify) == (2, "failures", "each")
    assert (old.source, old.first_line, old.file_name, old.version) == ("def report(): ...", 3, "n.ipynb", 0)
    assert old.blob == pickled() and (present.version, present.source, present.blob) == (1, "", b"")
    for call in ("ListVersions", "GetSource", "Rollback", "Pause", "Resume", "Replay"):
        more = {"replay_id": str(uuid.uuid4())} if call == "Replay" else {}
        status, text = refusal(lambda call=call, more=more: ask(registry, call, "bob", handler=of(first), **more))  # type: ignore[misc]
        assert status == "PERMISSION_DENIED" and "belongs to alice" in text, call
    assert len(ask(registry, "ListVersions", "root", handler=of(first)).versions) == 2


def test_a_handler_is_rolled_back_to_a_version_that_it_had(registry: Running) -> None:
    handler = registry.register(tags=["a"], options=api.Options(timeout_s=9)).handler
    registry.register(tags=["b"])

    back = ask(registry, "Rollback", handler=of(handler), version=0).handler

    assert (back.id, back.version, list(back.tag), back.options.timeout_s) == (handler.id, 2, ["a"], 9)
    assert registry.handlers() == [back]
    status, text = refusal(lambda: ask(registry, "Rollback", handler=of(handler), version=9))
    assert (status, text) == ("NOT_FOUND", "handler 'report' has no version 9; it has 0 to 2")


def test_a_handler_is_paused_and_resumed_by_its_owner_or_an_admin(registry: Running) -> None:
    handler = registry.register().handler

    paused = ask(registry, "Pause", handler=api.HandlerRef(name="report")).handler
    assert paused.paused and registry.handlers() == [paused] and paused.updated_by == "alice"
    again = registry.register()
    assert again.handler.paused and any("is paused" in note for note in again.notes)
    resumed = ask(registry, "Resume", "root", handler=of(handler)).handler
    assert not resumed.paused and resumed.updated_by == "root"
    status, text = refusal(lambda: ask(registry, "Pause", handler=api.HandlerRef(id=77)))
    assert status == "NOT_FOUND" and "77" in text and "list_handlers()" in text
    status, text = refusal(lambda: ask(registry, "Pause"))
    assert (status, text) == ("INVALID_ARGUMENT", "handler: is not told; it should be a handler's id or its name")


def test_a_replay_says_first_what_it_would_make_and_makes_it_once(registry: Running) -> None:
    handler = registry.register().handler
    met, missed = an_event(registry, handler), an_event(registry)
    an_event(registry, tags=("south",))
    replay_id = str(uuid.uuid4())

    dry = ask(registry, "Replay", handler=of(handler), dry_run=True, replay_id=replay_id)
    none_yet = ask(registry, "ListRuns").runs
    made = ask(registry, "Replay", handler=of(handler), replay_id=replay_id)
    twice = ask(registry, "Replay", handler=of(handler), replay_id=replay_id)

    assert dry == made and dry.events == 3 and dry.next_page == ""
    assert {run.request_id: bool(run.replay_of) for run in made.runs} == {met: True, missed: False}
    assert len(none_yet) == 1 and len(ask(registry, "ListRuns").runs) == 3
    assert [run.run_id for run in twice.runs] == [run.run_id for run in made.runs]
    assert all(run.was_there for run in twice.runs) and not any(run.was_there for run in made.runs)
    (run,) = [run for run in made.runs if run.replay_of]
    assert ask(registry, "GetRun", id=run.run_id).replay_of == none_yet[0].id


def test_a_replay_takes_the_time_and_the_sort_of_events_that_are_asked_for(registry: Running) -> None:
    handler = registry.register().handler
    an_event(registry, handler)
    missed = an_event(registry)
    now = time.time_ns() // 1_000_000
    before, after = now - 3_600_000, now + 3_600_000

    def asked(**more: Any) -> list[str]:
        answer = ask(registry, "Replay", handler=of(handler), dry_run=True, **more)
        return [run.request_id for run in answer.runs]

    assert asked(only="missing", since_ms=before) == [missed]
    assert asked(only="failed") == []
    assert len(asked(since_ms=before, until_ms=after)) == 2
    assert asked(since_ms=after) == [] and asked(until_ms=before) == []


def test_a_replay_of_many_events_goes_on_page_by_page(registry: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.versions.EVENTS", 2)
    handler = registry.register().handler
    wanted = {an_event(registry) for _ in range(5)}

    found, after, pages, replay_id = set(), "", 0, str(uuid.uuid4())
    while pages == 0 or after:
        page = ask(registry, "Replay", handler=of(handler), replay_id=replay_id, after=after)
        found |= {run.request_id for run in page.runs}
        after, pages = page.next_page, pages + 1

    assert (found, pages) == (wanted, 3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "replay_id: '' should be a UUID of your own choosing, the same for all pages"),
        ({"replay_id": "today"}, "replay_id: 'today' should be a UUID"),
        ({"dry_run": True, "only": "some"}, "only: 'some' should be missing, failed or empty"),
        ({"dry_run": True, "since_ms": -1}, "since_ms: is -1"),
        ({"dry_run": True, "since_ms": 5, "until_ms": 5}, "until_ms: is 5; it should be after since_ms (5)"),
        ({"dry_run": True, "after": "7"}, "after: '7' should be next_page"),
    ],
)
def test_what_cannot_be_replayed_is_named(registry: Running, asked: dict[str, Any], said: str) -> None:
    handler = registry.register().handler

    status, text = refusal(lambda: ask(registry, "Replay", handler=of(handler), **asked))

    assert status == "INVALID_ARGUMENT" and said in text


def test_a_paused_handler_cannot_be_replayed(registry: Running) -> None:
    handler = registry.register().handler
    ask(registry, "Pause", handler=of(handler))

    status, text = refusal(lambda: ask(registry, "Replay", handler=of(handler), dry_run=True))

    assert status == "FAILED_PRECONDITION" and "is paused" in text


def test_a_refused_key_pauses_until_a_new_one_is_sealed(registry: Running) -> None:
    handler, other = registry.register().handler, registry.register(name="other").handler
    refuse_key(registry, handler)

    assert {(one.name, one.paused, one.pause_reason) for one in registry.handlers()} == {
        ("report", True, "BTrDB refuses the API key"),
        ("other", True, "BTrDB refuses the API key"),
    }
    status, text = refusal(lambda: ask(registry, "Resume", handler=of(other)))
    assert status == "FAILED_PRECONDITION" and "rekey(conn) with a key that is good resumes it" in text
    done = ask(registry, "Rekey")

    assert done.handlers == 2 and {one.name for one in done.resumed} == {"report", "other"}
    assert not any(one.paused for one in registry.handlers())
    with registry.ledger.read() as session:
        assert unseal(session, registry.ledger, "alice") == KEYS["alice"]
        assert len(matchable(session)) == 2
    assert ask(registry, "Rekey", "bob") == api.RekeyResponse()


def test_registering_with_another_key_resumes_too_and_says_so(registry: Running) -> None:
    handler = registry.register().handler
    registry.register(name="other")
    refuse_key(registry, handler)

    answer = registry.register()

    assert not answer.handler.paused
    assert "resumed, as BTrDB refused the key before: other, report" in answer.notes
    assert not any(one.paused for one in registry.handlers())
