"""What users see of their runs, over TLS: their own, in pages, one whole, and its log while it is going on."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from schemas.generated import eventprocapi_pb2 as api
from schemas.generated import executorapi_pb2 as executor
from schemas.records import Outcome, RunError, Upload
from tests.made_runs import claim, end, make_runs
from tests.registry_server import HOOK, KEYS, TOKEN, Running, bearer, refusal

Runs = Callable[..., list[str]]


@pytest.fixture
def runs(registry: Running) -> Runs:
    """Makes runs of a handler, one event each; returns their ids."""
    return functools.partial(make_runs, registry)


def listing(registry: Running, user: str = "alice", **asked: Any) -> api.ListRunsResponse:
    answer: api.ListRunsResponse = registry.users.ListRuns(
        api.ListRunsRequest(**asked), metadata=bearer(KEYS[user]), timeout=30
    )
    return answer


def run(registry: Running, run_id: str, user: str = "alice") -> api.GetRunResponse:
    answer: api.GetRunResponse = registry.users.GetRun(
        api.GetRunRequest(id=run_id), metadata=bearer(KEYS[user]), timeout=30
    )
    return answer


def log(registry: Running, run_id: str, attempt: int = 0, at: int = 0, user: str = "alice") -> api.ReadLogResponse:
    asked = api.ReadLogRequest(id=run_id, attempt=attempt, at=at)
    answer: api.ReadLogResponse = registry.users.ReadLog(asked, metadata=bearer(KEYS[user]), timeout=30)
    return answer


def test_users_see_their_own_runs_and_an_admin_all(registry: Running, runs: Runs) -> None:
    hers = runs(registry.register("alice", name="hers").handler, 2)
    his = runs(registry.register("bob", name="his").handler, 1, "bob")

    assert {one.id for one in listing(registry, "alice").runs} == set(hers)
    assert {one.id for one in listing(registry, "bob").runs} == set(his)
    assert {one.id for one in listing(registry, "root").runs} == {*hers, *his}
    assert {one.id for one in listing(registry, "root", owner="bob").runs} == set(his)
    for call in (
        lambda: listing(registry, "bob", owner="alice"),
        lambda: listing(registry, "bob", handler=api.HandlerRef(name="hers")),
        lambda: run(registry, hers[0], "bob"),
        lambda: log(registry, hers[0], user="bob"),
    ):
        status, text = refusal(call)
        assert status == "PERMISSION_DENIED" and "alice" in text
    assert run(registry, hers[0], "root").run.owner == "alice"


def test_runs_are_found_by_handler_state_and_time_in_pages(registry: Running, runs: Runs) -> None:
    one, two = registry.register(name="one").handler, registry.register(name="two").handler
    many, other = runs(one, 7), runs(two, 1)
    end(registry, claim(registry, many[3]), Outcome.FAILED, error=RunError("ValueError", "no IA\nhere"))

    by_name = listing(registry, handler=api.HandlerRef(name="one", hook=HOOK))
    assert {line.id for line in by_name.runs} == set(many)
    assert [line.id for line in listing(registry, handler=api.HandlerRef(id=two.id)).runs] == other
    (failed,) = listing(registry, state="failed").runs
    assert (failed.id, failed.error, failed.handler, failed.subject) == (many[3], "ValueError: no IA", "one", "a.zip")
    assert not listing(registry, since_ms=by_name.runs[0].queued_at_ms + 1, handler=api.HandlerRef(id=one.id)).runs
    found, after = [], ""
    while True:
        page = listing(registry, limit=3, after=after)
        found += [line.id for line in page.runs]
        after = page.next_page
        if not after:
            break
    assert sorted(found) == sorted(many + other)


def test_a_removed_handlers_runs_are_found_by_its_id(registry: Running, runs: Runs) -> None:
    handler = registry.register().handler
    (one,) = runs(handler)
    registry.users.Deregister(api.DeregisterRequest(id=handler.id), metadata=bearer(KEYS["alice"]))

    (line,) = listing(registry, handler=api.HandlerRef(id=handler.id)).runs
    assert (line.id, line.state) == (one, "cancelled")
    status, text = refusal(lambda: listing(registry, handler=api.HandlerRef(name="report")))
    assert status == "NOT_FOUND" and "'report'" in text
    assert refusal(lambda: listing(registry, "bob", handler=api.HandlerRef(id=handler.id)))[0] == "PERMISSION_DENIED"


def test_a_run_is_told_whole(registry: Running, runs: Runs) -> None:
    handler = registry.register(options=api.Options(retries=1)).handler
    (one,) = runs(handler)
    fault = RunError("ValueError", "no IA", "Traceback ...")
    end(registry, claim(registry, one), Outcome.FAILED, error=fault, log="first\n")
    between = run(registry, one)
    lease = claim(registry, one, "again")
    upload = Upload("0" * 32, "plot.png", 123)
    end(
        registry, lease, text="well", log="second\n", uploads=(upload,), started_at_ns=10**18, ended_at_ns=10**18 + 5,
        cpu_s=1.5, peak_memory_bytes=77,
    )  # fmt: skip

    told = run(registry, one.upper())

    assert (between.run.state, between.error_type, between.error_traceback) == ("queued", "ValueError", "Traceback ...")
    assert (told.run.state, told.run.attempts, told.run.version) == ("succeeded", 2, 0)
    assert (told.text, told.log, told.error_type, list(told.tags)) == ("well", "second\n", "", ["north"])
    assert (told.run.started_at_ns, told.run.ended_at_ns) == (10**18, 10**18 + 5)
    assert (told.cpu_s, told.peak_memory_bytes, told.runtime) == (1.5, 77, "py3.11")
    assert [(file.name, file.size, file.link) for file in told.files] == [
        ("plot.png", 123, f"https://files.example.com/{'0' * 32}")
    ]
    assert [(one.number, one.executor, one.reason) for one in told.attempts] == [
        (1, "ex-1", "failed: ValueError: no IA"),
        (2, "ex-1", "succeeded"),
    ]


def test_a_log_is_read_on_while_the_run_is_going_on_until_it_ends(registry: Running, runs: Runs) -> None:
    (one,) = runs(registry.register().handler)
    assert log(registry, one) == api.ReadLogResponse(state="queued")
    lease = claim(registry, one)

    def append(at: int, text: str, lease: executor.Lease = lease) -> int:
        asked = executor.AppendLogRequest(printed=[executor.Printed(lease=lease, at=at, text=text)])
        return int(registry.executors.AppendLog(asked, metadata=bearer(TOKEN)).at[0])

    assert append(0, "one\n") == 4
    first = log(registry, one)
    assert append(4, "two\n") == 8
    second = log(registry, one, first.attempt, first.at)
    end(registry, lease, log="one\ntwo\nthree\n")
    last = log(registry, one, second.attempt, second.at)

    assert first == api.ReadLogResponse(text="one\n", attempt=1, at=4, state="running")
    assert second == api.ReadLogResponse(text="two\n", attempt=1, at=8, state="running")
    assert last == api.ReadLogResponse(text="three\n", attempt=1, at=14, state="succeeded", ended=True)
    assert append(8, "late\n") == -1
    assert append(0, "x", executor.Lease(run_id=one, lease_id="0" * 32)) == -1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"state": "broken"}, "state: 'broken' should be one of queued, running, succeeded, failed, "),
        ({"limit": 501}, "limit: is 501; it should be 1 to 500, or 0 for 100"),
        ({"limit": -1}, "limit: is -1"),
        ({"since_ms": -1}, "since_ms: is -1"),
        ({"after": "yesterday"}, "after: 'yesterday' should be next_page of the page before"),
        ({"after": f"{10**30}.x"}, "should be next_page"),
        ({"hook": "nope"}, "hook: 'nope' is no hook; there are: ctingress.on_complete"),
        ({"handler": api.HandlerRef(name="a", hook="nope")}, "hook: 'nope' is no hook"),
    ],
)
def test_what_cannot_be_listed_is_named(registry: Running, asked: dict[str, Any], said: str) -> None:
    status, text = refusal(lambda: listing(registry, **asked))

    assert status == "INVALID_ARGUMENT" and said in text


def test_a_run_that_is_not_there_is_not_found_and_an_id_that_is_none_is_said_to_be(registry: Running) -> None:
    nowhere = str(uuid.uuid4())

    assert refusal(lambda: run(registry, nowhere)) == ("NOT_FOUND", f"no run has the id {nowhere}")
    assert refusal(lambda: log(registry, nowhere))[0] == "NOT_FOUND"
    assert refusal(lambda: run(registry, "7"))[1].startswith("id: '7' should be a UUID")
    assert refusal(lambda: log(registry, nowhere, at=-1))[1].startswith("at: is -1")


def test_a_call_without_a_known_key_is_refused(registry: Running) -> None:
    users, wrong = registry.users, bearer("D" * 40)
    calls = (
        lambda: users.ListRuns(api.ListRunsRequest(), metadata=wrong),
        lambda: users.GetRun(api.GetRunRequest(), metadata=wrong),
        lambda: users.ReadLog(api.ReadLogRequest(), metadata=wrong),
        lambda: users.ListVersions(api.ListVersionsRequest(), metadata=wrong),
        lambda: users.GetSource(api.GetSourceRequest(), metadata=wrong),
        lambda: users.Rollback(api.RollbackRequest(), metadata=wrong),
        lambda: users.Pause(api.PauseRequest(), metadata=wrong),
        lambda: users.Resume(api.ResumeRequest(), metadata=wrong),
        lambda: users.Replay(api.ReplayRequest(), metadata=wrong),
        lambda: users.Rekey(api.RekeyRequest(), metadata=wrong),
        lambda: registry.executors.AppendLog(executor.AppendLogRequest(), metadata=bearer(KEYS["root"])),
    )

    assert [refusal(call)[0] for call in calls] == ["UNAUTHENTICATED"] * len(calls)


def test_leases_that_are_told_of_in_any_order_are_answered_in_that_order(registry: Running, runs: Runs) -> None:
    ids = runs(registry.register().handler, 3)
    leases = [claim(registry, one) for one in ids]
    asked = [executor.Printed(lease=lease, at=0, text="x" * (n + 1)) for n, lease in enumerate(leases)]
    unknown = executor.Printed(lease=executor.Lease(run_id="", lease_id=""), at=0, text="x")

    answer = registry.executors.AppendLog(executor.AppendLogRequest(printed=[*asked, unknown]), metadata=bearer(TOKEN))

    assert list(answer.at) == [1, 2, 3, -1]
