"""What a registration asks for reaches the sandbox; what its handler prints reaches its owner while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from executor.sandbox.job import MIB
from schemas.generated import eventprocapi_pb2 as api
from schemas.records import Outcome
from stream.memory import MemoryBroker
from stream.messages import Message
from tests.executor.conftest import Make, result, results, run_of, until
from tests.registry_server import KEYS, Running, bearer


def test_a_handlers_own_time_limit_is_its_sandboxs(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    def waits(**kwargs: Any) -> None:
        __import__("time").sleep(600)

    make().handle([task(waits, timeout_s=1)])

    ended = result(broker)
    assert ended.outcome == Outcome.TIMED_OUT
    assert ended.error is not None and "time limit of 1 s" in ended.error.message


@pytest.mark.parametrize(("asked", "outcome"), [(128 * MIB, Outcome.OUT_OF_MEMORY), (0, Outcome.SUCCEEDED)])
def test_a_handlers_own_memory_limit_is_its_sandboxs(
    broker: MemoryBroker, make: Make, task: Callable[..., Message], asked: int, outcome: Outcome
) -> None:
    def fills(**kwargs: Any) -> int:
        return len(bytearray(b"x") * (200 << 20))

    make().handle([task(fills, memory_bytes=asked)])

    assert result(broker).outcome == outcome


def test_a_handler_that_gets_less_memory_than_it_asks_for_is_told_in_its_log(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    make().handle([task(lambda **kwargs: print("mine"), memory_bytes=1024 * MIB)])

    said = "eventproc: it asks for 1024 MiB of memory; this executor gives 512 MiB at most (EXECUTOR_MEMORY_BYTES)\n"
    assert result(broker).log == f"mine\n{said}"


def test_a_handler_that_asks_for_the_least_memory_runs(
    broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    make().handle([task(lambda **kwargs: "small", memory_bytes=64 * MIB)])

    assert result(broker).text == "small"


def test_what_a_handler_prints_is_read_by_its_owner_while_it_runs(
    registry: Running, broker: MemoryBroker, make: Make, task: Callable[..., Message]
) -> None:
    def prints(**kwargs: Any) -> None:
        import time

        print("looking")
        time.sleep(600)

    execute, message = make(), task(prints)
    run_id = run_of(registry, message).run_id
    execute.handle([message])
    stop = threading.Event()
    following = threading.Thread(target=execute.follow.run, args=(stop,))
    following.start()

    def log() -> str:
        asked = api.ReadLogRequest(id=run_id)
        return str(registry.users.ReadLog(asked, metadata=bearer(KEYS["alice"])).text)

    try:
        until(lambda: log() == "looking\n", "the line")
    finally:
        stop.set()
        following.join()
    assert results(broker) == []
