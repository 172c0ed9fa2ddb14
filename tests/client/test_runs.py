"""Runs, versions and what is done with handlers, as a notebook asks for them; against a real registry."""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from btrdbextras import Connection, errors
from btrdbextras.eventproc import (
    Handler,
    follow,
    list_handlers,
    look,
    pause,
    register,
    rekey,
    replay,
    resume,
    rollback,
    run,
    runs,
    source,
    versions,
)
from schemas.generated import eventprocapi_pb2 as api
from schemas.records import Outcome, RunError, Upload
from tests.made_runs import claim, end, make_runs, printed
from tests.registry_server import KEYS, Running, running

HOOK, MAIL = "ctingress.on_complete", "alice@example.com"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with running(tmp_path / "registry", check_s=0.0) as served:
        monkeypatch.setenv("BTRDB_CA_BUNDLE", str(served.ca))
        yield served


def of(registry: Running, user: str = "alice") -> Connection:
    return Connection(f"127.0.0.1:{registry.servers.public}", KEYS[user])


def peaks(**kwargs: Any) -> str:
    return "done"


def test_runs_come_newest_first_as_namedtuples_and_show_as_a_table(registry: Running) -> None:
    ids = [make_runs(registry, registry.register(name=name).handler)[0] for name in ("one", "two")]
    end(registry, claim(registry, ids[0]), Outcome.FAILED, error=RunError("ValueError", "no <IA>\nhere", "Traceback"))

    found = runs(of(registry))

    assert isinstance(found, list)
    assert {one.id for one in found} == set(ids)
    (failed,) = runs(of(registry), state="failed")
    assert failed.handler == "one" and failed.error == "ValueError: no <IA>" and failed.attempts == 1
    assert failed.queued_at.tzinfo is datetime.UTC
    (queued,) = runs(of(registry), handler="two")
    assert (queued.state, queued.started_at, queued.seconds) == ("queued", None, None)
    html = found._repr_html_()  # type: ignore[attr-defined]
    assert "no &lt;IA&gt;" in html and "<IA>" not in html


def test_runs_are_found_by_what_is_known_of_them(registry: Running) -> None:
    made = registry.register(name="one").handler
    many = make_runs(registry, made, 5)
    (handler,) = list_handlers(of(registry))

    for given in ("one", made.id, handler):
        assert {one.id for one in runs(of(registry), given)} == set(many)
    assert len(runs(of(registry), limit=2)) == 2
    assert len(runs(of(registry), since="1h", hook=HOOK)) == 5
    assert runs(of(registry), since=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)) == []
    assert runs(of(registry, "bob")) == []
    assert len(runs(of(registry, "root"), owner="alice")) == 5
    with pytest.raises(errors.NotYours):
        runs(of(registry, "bob"), owner="alice")
    with pytest.raises(errors.UnknownHandler, match="'nothing'"):
        runs(of(registry), "nothing")


def test_more_than_a_page_of_runs_comes_page_by_page(registry: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "PAGE", 2)
    many = make_runs(registry, registry.register().handler, 5)

    assert sorted(one.id for one in runs(of(registry))) == sorted(many)
    assert len(runs(of(registry), limit=3)) == 3


def test_a_run_is_told_whole(registry: Running) -> None:
    (one,) = make_runs(registry, registry.register().handler)
    end(
        registry, claim(registry, one), text="peak 12 A", log="looking\n", started_at_ns=10**18, ended_at_ns=10**18 + 2 * 10**9,
        cpu_s=1.5, peak_memory_bytes=3 << 20, uploads=(Upload("0" * 32, "plot.png", 2048),),
    )  # fmt: skip

    told = run(of(registry), one)

    assert (told.text, told.log, told.traceback) == ("peak 12 A", "looking\n", "")
    assert (told.run.state, told.run.seconds, told.cpu_seconds, told.peak_memory) == ("succeeded", 2.0, 1.5, 3 << 20)
    assert told.files == [("plot.png", 2048, f"https://files.example.com/{'0' * 32}")]
    assert told.tags == ["north"]
    assert told == run(of(registry), runs(of(registry))[0])
    for words in (
        "report (version 0) for a.zip: succeeded",
        "peak 12 A",
        "2.0 s, CPU 1.5 s, peak memory 3.0 MiB",
        "2.0 KiB",
    ):
        assert words in repr(told)
    assert "<pre>peak 12 A</pre>" in told._repr_html_()


def test_the_attempts_of_a_run_that_was_tried_again_are_told(registry: Running) -> None:
    (one,) = make_runs(registry, registry.register(options=_options(retries=1)).handler)
    for nonce in ("first", "again"):
        end(
            registry,
            claim(registry, one, nonce),
            Outcome.FAILED,
            error=RunError("ValueError", "no IA", "Traceback <b>"),
        )

    told = run(of(registry), one)

    assert [attempt.number for attempt in told.attempts] == [1, 2]
    assert "2 on ex-1: failed: ValueError: no IA" in repr(told)
    assert "Traceback &lt;b&gt;" in told._repr_html_()


def _options(**given: Any) -> Any:
    return api.Options(**given)


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"id": "7"}, ValueError, "'7' is no id of a run; runs.conn. shows them"),
        ({"id": 7}, TypeError, "id should be a run's id as text"),
        ({"id": str(uuid.UUID(int=7))}, errors.UnknownRun, "no run has the id"),
    ],
)
def test_what_is_no_run_is_told(registry: Running, given: Any, kind: Any, says: str) -> None:
    with pytest.raises(kind, match=says):
        run(of(registry), **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"state": "broken"}, "state 'broken' should be one of queued, running, succeeded"),
        ({"limit": 0}, "limit 0 should be an int, 1 or more"),
        ({"handler": True}, "handler should be an id, a name or an entry of list_handlers"),
        ({"handler": 0}, "handler 0 is no id"),
        ({"hook": 3}, "hook should be a str"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_here(given: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        runs(Connection("127.0.0.1:9", "key"), **given)


def test_somebody_elses_run_is_not_shown(registry: Running) -> None:
    (one,) = make_runs(registry, registry.register().handler)

    with pytest.raises(errors.NotYours, match="alice"):
        run(of(registry, "bob"), one)
    assert run(of(registry, "root"), one).run.owner == "alice"


def test_a_log_is_followed_from_before_its_start_to_its_end(registry: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "AGAIN_S", 0.01)
    (one,) = make_runs(registry, registry.register(options=_options(retries=1)).handler)
    seen: list[str] = []
    came = threading.Condition()

    def read() -> None:
        for piece in follow(of(registry), one):
            with came:
                seen.append(piece)
                came.notify_all()

    def wait_for(text: str) -> None:
        with came:
            assert came.wait_for(lambda: text in "".join(seen), timeout=30), seen

    reader = threading.Thread(target=read)
    reader.start()
    lease = claim(registry, one)
    printed(registry, lease, 0, "one\n")
    wait_for("one\n")
    printed(registry, lease, 4, "two\n")
    wait_for("two\n")
    end(registry, lease, Outcome.FAILED, error=RunError("ValueError", "no", ""), log="one\ntwo\n")
    again = claim(registry, one, "again")
    printed(registry, again, 0, "three\n")
    wait_for("three\n")
    end(registry, again, log="three\nfour\n")
    reader.join(30)

    assert not reader.is_alive()
    assert "".join(seen) == "one\ntwo\n\n--- attempt 2 ---\nthree\nfour\n"
    assert "".join(look.printed(of(registry), one)) == "three\nfour\n"


def test_a_log_is_followed_over_a_moment_without_a_platform(
    platform: Any, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "AGAIN_S", 0.01)
    away = grpc.StatusCode.UNAVAILABLE
    one, two = (api.ReadLogResponse(text=text, attempt=1, ended=text == "two") for text in ("one", "two"))
    platform.logs = [one, away, away, two]

    assert list(follow(conn, str(uuid.UUID(int=7)))) == ["one", "two"]


def test_a_log_that_cannot_be_had_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "AWAY_S", float("inf"))
    conn = Connection("127.0.0.1:9", "key")

    with pytest.raises(ValueError, match="'peaks' is no id of a run"):
        follow(conn, "peaks")
    with pytest.raises(errors.NoServer):
        next(follow(conn, str(uuid.UUID(int=7))))


def test_versions_their_source_and_the_way_back(registry: Running, capsys: pytest.CaptureFixture[str]) -> None:
    conn = of(registry)
    register(conn, "peaks", HOOK, MAIL, MAIL, tags=["north"], timeout="10m", description="first")(peaks)

    def peaks_again(**kwargs: Any) -> str:
        return "again"

    register(conn, "peaks", HOOK, MAIL, MAIL)(peaks_again)

    newest, oldest = versions(conn, "peaks")
    assert (newest.version, newest.present, oldest.version, oldest.present) == (1, True, 0, False)
    assert (oldest.tags, oldest.options["timeout"], oldest.options["description"]) == (["north"], 600, "first")
    assert 'return "again"' in source(conn, "peaks").text
    first = source(conn, "peaks", 0, blob=True)
    assert first.text.startswith("def peaks(") and first.version == 0 and first.blob
    back = rollback(conn, "peaks", 0)
    assert (back.version, back.tags) == (2, ["north"])
    assert source(conn, "peaks").text == first.text
    with pytest.raises(errors.UnknownHandler, match="has no version 7"):
        rollback(conn, "peaks", 7)
    with pytest.raises(errors.NotYours):
        source(of(registry, "bob"), "peaks")
    with pytest.raises(TypeError, match="version should be an int"):
        rollback(conn, "peaks", None)  # type: ignore[arg-type]


def test_a_handler_is_paused_and_goes_on(registry: Running) -> None:
    conn, made = of(registry), registry.register().handler

    paused = pause(conn, made.id)
    assert isinstance(paused, Handler) and paused.paused
    assert list_handlers(conn)[0].state == "paused"
    assert not resume(conn, "report").paused
    with pytest.raises(errors.NotYours):
        pause(of(registry, "bob"), made.id)
    with pytest.raises(errors.UnknownHandler):
        resume(conn, 77)


def test_a_replay_says_what_it_would_make_then_makes_it_once(registry: Running) -> None:
    conn, made = of(registry), registry.register().handler
    many = make_runs(registry, made, 3)

    plan = replay(conn, "report", since="1h", dry_run=True)
    assert {one.replay_of for one in plan} == set(many)
    assert len(runs(conn)) == 3
    assert replay(conn, "report", since="1h", only="missing") == []
    once = str(uuid.uuid4())
    first = replay(conn, "report", since="1h", replay_id=once)
    again = replay(conn, "report", since="1h", replay_id=once)
    assert [one.run_id for one in first] == [one.run_id for one in again]
    assert {one.was_there for one in first} == {False} and {one.was_there for one in again} == {True}
    assert len(runs(conn)) == 6
    assert run(conn, first[0].run_id).replay_of == first[0].replay_of


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"since": None}, "since should say from when on"),
        ({"since": "1h", "until": "2h"}, "since should be before until"),
        ({"since": "1h", "only": "all"}, "only 'all' should be 'missing', 'failed' or None"),
        ({"since": "1h", "replay_id": "mine"}, "replay_id 'mine' should be a UUID"),
    ],
)
def test_a_replay_that_cannot_be_is_refused_here(given: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        replay(Connection("127.0.0.1:9", "key"), "report", **given)


def test_a_new_key_is_sealed_for_all_handlers(registry: Running, capsys: pytest.CaptureFixture[str]) -> None:
    registry.register(name="one")
    registry.register(name="two")

    assert rekey(of(registry)) == []
    assert capsys.readouterr().out.endswith("handlers that run under this API key now: 2\n")


def test_what_the_operator_does_not_allow_is_told_with_the_limit(registry: Running) -> None:
    with pytest.raises(errors.InvalidRegistration, match=r"options.retries: is 99; .*10"):
        register(of(registry), "peaks", HOOK, MAIL, MAIL, retries=99)(peaks)


def test_an_older_platform_is_told_of(platform: Any, conn: Any) -> None:
    for ask in (
        lambda: runs(conn),
        lambda: versions(conn, "peaks"),
        lambda: next(follow(conn, str(uuid.UUID(int=7)))),
        lambda: pause(conn, 7),
        lambda: replay(conn, 7, since="1h"),
        lambda: rekey(conn),
    ):
        with pytest.raises(errors.OlderPlatform, match="older than this package: it has no"):
            ask()
