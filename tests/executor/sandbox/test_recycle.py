"""Zygotes are replaced by age and by growth; runs in flight finish; memory stays flat."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from executor.sandbox.job import MIB, Access, Ended
from executor.sandbox.memory import private_bytes
from executor.sandbox.recycle import Lifetime
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import RUNTIME, make_job

FLAT_BYTES = 16 * MIB


@contextmanager
def started(lifetime: Lifetime, warm: int = 1) -> Iterator[SandboxedRuntime]:
    runtime = SandboxedRuntime(RUNTIME, Access(None), warm=warm, scratch_bytes=64 * MIB, lifetime=lifetime)
    runtime.start()
    try:
        yield runtime
    finally:
        runtime.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it did not come true within 90 s"
        time.sleep(0.02)


def test_an_old_zygote_is_replaced_and_a_run_in_flight_finishes() -> None:
    def slow(**kwargs: Any) -> str:
        import time

        time.sleep(4)
        return "finished"

    with started(Lifetime(age_s=2.0)) as runtime, ThreadPoolExecutor(1) as pool:
        # given: a run that has begun in a child of the first zygote
        begun = threading.Event()
        running = pool.submit(runtime.run, make_job(slow), on_started=begun.set)
        assert begun.wait(90)

        # when: another zygote takes over, and serves
        wait_for(lambda: runtime.replaced() >= 1)
        other = runtime.run(make_job(lambda **kwargs: "served"))

        # then: neither is lost
        assert other.text == "served"
        assert (running.result().outcome, running.result().text) == (Outcome.SUCCEEDED, "finished")


def test_a_zygote_that_has_grown_is_replaced() -> None:
    with started(Lifetime(growth_bytes=0)) as runtime:
        wait_for(lambda: runtime.replaced() >= 1)
        assert runtime.run(make_job(lambda **kwargs: "served")).text == "served"


def test_a_young_zygote_that_has_not_grown_stays(sandbox: SandboxedRuntime) -> None:
    assert sandbox.zygote_bytes() > 16 * MIB
    assert sandbox.replaced() == 0


@pytest.mark.slow
def test_no_run_is_lost_while_zygotes_are_replaced_again_and_again() -> None:
    with started(Lifetime(age_s=0.0), warm=2) as runtime, ThreadPoolExecutor(2) as pool:
        texts: list[str] = []
        while runtime.replaced() < 2:
            texts += [ended.text for ended in pool.map(runtime.run, [make_job(lambda **kwargs: "served")] * 4)]
        assert set(texts) == {"served"}


def soak(runs: int, say: Callable[[str], None]) -> None:
    """Runs so many handlers two at a time; memory is read ten times on the way, and must not grow after the second."""

    def handler(File: str, **kwargs: Any) -> str:
        import numpy

        print("looking at", File)
        return str(numpy.arange(1000).sum())

    with started(Lifetime(), warm=2) as runtime, ThreadPoolExecutor(2) as pool:
        job = make_job(handler)
        readings: list[tuple[int, int]] = []

        def one(_: int) -> Ended:
            return runtime.run(job)

        for part in range(10):
            began = time.monotonic()
            for ended in pool.map(one, range(runs // 10)):
                assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "499500")
            readings.append((runtime.zygote_bytes(), private_bytes(os.getpid())))
            zygote, executor = readings[-1]
            rate = runs // 10 / (time.monotonic() - began)
            say(
                f"{(part + 1) * (runs // 10):6} runs: zygote {zygote / MIB:6.1f} MiB, executor {executor / MIB:6.1f} MiB, "
                f"{len(os.listdir('/proc/self/fd'))} descriptors, {threading.active_count()} threads, {rate:.0f} runs/s"
            )
        assert runtime.replaced() == 0
        for index, who in enumerate(("zygote", "executor")):
            grown = readings[-1][index] - readings[1][index]
            assert grown < FLAT_BYTES, f"the {who} grew by {grown / MIB:.1f} MiB"


@pytest.mark.slow
def test_memory_stays_flat_over_300_runs() -> None:
    soak(300, print)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_20_000_runs(capsys: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    soak(20_000, say)
