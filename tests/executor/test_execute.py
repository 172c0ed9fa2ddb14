"""Task -> claim -> sandboxed run -> result, over a real registry and a real sandbox, with a broker in memory."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from schemas.encoding import encode
from schemas.errors import TryLater
from schemas.records import Outcome, Task, to_plain
from schemas.topics import tasks_topic
from stream.memory import MemoryBroker
from stream.messages import Message
from tests.executor.conftest import RUNTIME, Make, result, results, run_of, until
from tests.package_index import PackageIndex
from tests.registry_server import KEYS, Running


def test_a_task_is_claimed_run_reported_and_its_result_is_in_kafka(
    registry: Running, broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    def handler(File: str, **kwargs: Any) -> str:
        print("hello")
        return File + " as " + hashlib.sha256(os.environ["BTRDB_API_KEY"].encode()).hexdigest()

    message = task(handler)
    assert make().handle([message]) == []

    ended = result(broker)
    assert (ended.outcome, ended.text) == (
        Outcome.SUCCEEDED,
        f"a.zip as {hashlib.sha256(KEYS['alice'].encode()).hexdigest()}",
    )
    assert ended.log == "hello\n" and ended.cpu_s > 0 and ended.ended_at_ns >= ended.started_at_ns > 0
    until(lambda: run_of(registry, message).state == "reported", "the report")


def test_the_same_batch_again_starts_nothing_again(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    execute, message = make(), task(lambda **kwargs: "once")
    execute.handle([message])
    execute.handle([message])
    until(lambda: execute.free_slots() == 2, "the slots to be free")
    execute.handle([message])

    assert len(results(broker)) == 1


def test_a_run_that_another_executor_holds_is_left_to_it(
    registry: Running, make: Make, task: Callable[..., Message]
) -> None:
    def waits(**kwargs: Any) -> None:
        __import__("time").sleep(60)

    one, two, message = make(), make(), task(waits)
    one.handle([message])

    two.handle([message])

    assert (one.free_slots(), two.free_slots()) == (1, 2)


def test_a_task_that_cannot_be_read_is_named_and_the_others_go_on(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    bad = Message(tasks_topic(RUNTIME), 0, 999, None, b"\xff\x00no task", (), 0)
    value = encode("task", to_plain(Task("\0" * 36, "alice", RUNTIME, "h", 0)))
    worse = Message(tasks_topic(RUNTIME), 0, 1000, None, value, (), 0)

    one, other = make().handle([bad, worse, task(lambda **kwargs: "ran")])

    assert one.message == bad and one.reason
    assert other.message == worse and other.reason.startswith("task: run_id: should be a UUID as text")
    assert result(broker).text == "ran"


def test_a_runtime_that_is_not_here_is_refused_by_naming_what_there_is(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    make().handle([task(lambda **kwargs: None, runtime="py3.7")])

    ended = result(broker)
    assert ended.outcome == Outcome.REFUSED
    assert ended.error is not None and ended.error.message == "this executor has no runtime py3.7; it has py3.11"


def test_a_registry_that_is_away_at_the_claim_leaves_the_batch_to_be_tried_again(
    registry: Running, make: Make, task: Callable[..., Message]
) -> None:
    execute, message = make(registry_timeout_s=1), task(lambda **kwargs: None)
    registry.servers.stop(0)

    with pytest.raises(TryLater):
        execute.handle([message])
    assert execute.free_slots() == 2


def test_a_result_waits_for_kafka_to_come_back(
    registry: Running, broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    message = task(lambda **kwargs: "kept")
    broker.away = True
    execute = make()
    execute.handle([message])
    until(lambda: run_of(registry, message).state == "running", "the claim")
    until(lambda: execute._begun, "the handler to begin")
    assert results(broker) == []
    broker.away = False

    assert result(broker).text == "kept"


def test_a_lease_that_somebody_else_has_taken_ends_the_handler_and_nothing_is_told(
    registry: Running, broker: MemoryBroker, make: Make, task: Callable[..., Message], tmp_path: Path
) -> None:
    def waits(**kwargs: Any) -> None:
        __import__("time").sleep(60)

    execute, message = make(), task(waits)
    execute.handle([message])
    until(lambda: execute._begun, "the handler to begin")
    with registry.ledger.write() as session:
        session.execute(text("UPDATE run SET lease_hash = 'another'"))

    execute.leases.turn()

    until(lambda: execute.free_slots() == 2, "the slot to be free")
    assert results(broker) == []


def test_a_stopped_executor_lets_a_run_end_within_the_grace(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    def short(**kwargs: Any) -> str:
        __import__("time").sleep(0.5)
        return "finished"

    execute = make()
    execute.handle([task(short)])

    assert execute.stop(60) == 0
    assert execute.free_slots() == 0
    assert result(broker).text == "finished"


def test_an_executor_that_waits_for_its_runs_to_end_goes_on_turning(make: Make, task: Callable[..., Message]) -> None:
    def until_told(**kwargs: Any) -> None:
        __import__("time").sleep(60)

    execute, turns = make(), 0
    execute.handle([task(until_told)])
    until(lambda: execute._begun, "the handler to begin")

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            for run_id in list(execute._running):
                execute._kill(run_id, "the test has seen enough")

    execute.stop(60, turn)

    assert turns >= 3


def test_what_has_not_ended_within_the_grace_is_handed_back_and_runs_elsewhere(
    registry: Running, broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    def waits_the_first_time(**kwargs: Any) -> str:
        __import__("time").sleep(60)
        return "never"

    execute, message = make(), task(waits_the_first_time)
    execute.handle([message])
    until(lambda: execute._begun, "the handler to begin")

    assert execute.stop(0.01) == 1

    assert run_of(registry, message).state == "queued"
    assert results(broker) == []


def test_a_handler_that_kills_itself_is_told_as_crashed(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    def dies(**kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    make().handle([task(dies)])

    assert result(broker).outcome == Outcome.CRASHED


def test_a_handler_runs_with_its_requirements_and_one_whose_are_missing_is_refused_by_name(
    make: Make, task: Callable[..., Message], broker: MemoryBroker, index: PackageIndex
) -> None:
    def greets(**kwargs: Any) -> str:
        import greeting  # type: ignore[import-not-found]

        return str(greeting.WORD)

    index.add("greeting", "1.0", {"greeting.py": "WORD = 'hello'"})

    make().handle(
        [task(greets, "with", requirements=["Greeting >= 1"]), task(greets, "none", requirements=["nowhere"])]
    )

    until(lambda: len(results(broker)) == 2, "two results")
    told = {(one.outcome, one.text or (one.error and one.error.message)) for one in results(broker)}
    assert (Outcome.SUCCEEDED, "hello") in told
    ((_, why),) = [one for one in told if one[0] is Outcome.REFUSED]
    assert "nowhere" in str(why)


def test_a_run_is_handed_back_while_the_package_index_is_away(
    registry: Running, make: Make, task: Callable[..., Message], index: PackageIndex
) -> None:
    message = task(lambda **kwargs: "ran", requirements=["greeting<7"])
    index.broken = True
    try:
        make().handle([message])
        until(lambda: run_of(registry, message).state == "queued", "the hand-back")
    finally:
        index.broken = False

    (attempt,) = run_of(registry, message).attempts
    assert "INDEX_AWAY: the package index is away" in attempt.reason
