"""A runtime that sleeps wakes for a run, and sleeps again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from executor.sandbox.job import MIB, Access, Runtime, SandboxLost
from executor.sandbox.runtime import SandboxedRuntime
from executor.sandbox.sleep import SleepingRuntime
from schemas.records import Outcome
from tests.executor.sandbox.conftest import RUNTIME, make_job


def make() -> SandboxedRuntime:
    return SandboxedRuntime(RUNTIME, Access(None), warm=0, scratch_bytes=64 * MIB)


def asleep(runtime: SleepingRuntime) -> None:
    """Waits for it."""
    deadline = time.monotonic() + 60
    while runtime.awake and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert not runtime.awake


@pytest.fixture
def runtime() -> Iterator[SleepingRuntime]:
    made = SleepingRuntime("py3.11", make, idle_s=0.2)
    yield made
    made.close()


def test_it_has_no_zygote_until_a_run_comes_and_none_some_time_after_the_last(runtime: SleepingRuntime) -> None:
    assert not runtime.awake

    for _ in range(2):
        ended = runtime.run(make_job(lambda **kwargs: "here"))
        assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "here")
        asleep(runtime)


def test_a_kill_that_comes_before_it_is_awake_is_not_forgotten(runtime: SleepingRuntime) -> None:
    job = make_job(lambda **kwargs: "here")

    runtime.kill(job.run_id, "its lease was lost")

    with pytest.raises(SandboxLost, match="its lease was lost"):
        runtime.run(job)


def test_one_that_cannot_start_hands_its_run_back_with_the_reason() -> None:
    broken = SleepingRuntime(
        "py3.9", lambda: SandboxedRuntime(Runtime("py3.9", RUNTIME.python / "no"), Access(None)), 60
    )

    with pytest.raises(SandboxLost, match="does not answer"):
        broken.run(make_job(lambda **kwargs: "here"))
    broken.close()


def test_a_closed_one_starts_no_more(runtime: SleepingRuntime) -> None:
    runtime.close()

    with pytest.raises(SandboxLost, match="closed"):
        runtime.run(make_job(lambda **kwargs: "here"))
