"""What a handler must not exhaust, and the cause that is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from executor.sandbox.job import MIB, Ended
from schemas.records import Outcome

Run = Callable[..., Ended]


def test_one_array_too_large_is_out_of_memory(run: Run) -> None:
    ended = run(lambda **kwargs: len(bytearray(4 << 30)), memory_bytes=256 * MIB)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert ended.error is not None and ended.error.type == "MemoryError" and "256 MiB" in ended.error.message


def test_memory_that_grows_is_out_of_memory_with_its_peak(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        held = []
        while True:
            held.append(b"x" * (8 << 20))

    ended = run(handler, memory_bytes=256 * MIB)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert ended.error is not None and "limit" in ended.error.message
    assert 200 * MIB < ended.peak_memory_bytes < 640 * MIB


def test_memory_is_counted_over_the_whole_tree(run: Run) -> None:
    # given: processes each of which stays within the limit
    def handler(**kwargs: Any) -> None:
        import os
        import time

        for _ in range(4):
            if os.fork() == 0:
                held = b"x" * (100 << 20)
                time.sleep(3600)
                print(len(held))
        time.sleep(3600)

    ended = run(handler, memory_bytes=256 * MIB)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert ended.error is not None and "processes" in ended.error.message


def test_files_in_the_scratch_count_as_memory(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import time

        with open("/tmp/large", "wb") as file:
            file.write(b"x" * (100 << 20))
        held = b"y" * (100 << 20)
        time.sleep(3600)
        print(len(held))

    ended = run(handler, memory_bytes=160 * MIB, scratch_bytes=128 * MIB)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert ended.error is not None and "of files" in ended.error.message


def test_the_scratch_is_limited(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        for number in range(100):
            with open(f"/tmp/{number}", "wb") as file:
                file.write(b"x" * (1 << 20))

    ended = run(handler, scratch_bytes=16 * MIB)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None and ended.error.type == "OSError" and "No space" in ended.error.message


def test_a_handler_is_warned_before_its_time_limit(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import time

        try:
            time.sleep(3600)
        finally:
            print("cleaned up")

    ended = run(handler, wall_s=1.0, warning_s=0.6)

    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.error is not None and ended.error.type == "TimeLimit" and "1 s" in ended.error.message
    assert ended.log == "cleaned up\n"


def test_a_handler_that_returns_in_time_after_the_warning_has_succeeded(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import time

        try:
            time.sleep(3600)
        except Exception:
            return "half of it"
        return "all"

    ended = run(handler, wall_s=2.0, warning_s=1.5)

    assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "half of it")


def test_a_handler_that_ignores_the_warning_is_killed(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import signal
        import time

        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            try:
                time.sleep(3600)
            except BaseException:
                print("no")

    ended = run(handler, wall_s=0.8, warning_s=0.4)

    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.error is not None and "killed at its time limit" in ended.error.message


def test_a_result_whose_str_never_ends_is_timed_out(run: Run) -> None:
    def handler(**kwargs: Any) -> object:
        class Endless:
            def __str__(self) -> str:
                while True:
                    pass

        return Endless()

    assert run(handler, wall_s=0.8, warning_s=0.2).outcome is Outcome.TIMED_OUT


def test_a_flood_of_output_is_cut_to_head_and_tail(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        print("the beginning")
        for _ in range(4000):
            print("x" * 1000)
        print("the end")
        return "done"

    ended = run(handler, output_bytes=64 * 1024)

    assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "done")
    assert ended.log_truncated and "bytes left out" in ended.log
    assert ended.log.startswith("the beginning\n") and ended.log.endswith("the end\n")
    assert len(ended.log) < 70 * 1024


def test_a_long_text_is_cut(run: Run) -> None:
    ended = run(lambda **kwargs: "é" * 1_000_000, text_bytes=1001)
    assert ended.text == "é" * 500


def test_a_fork_bomb_meets_its_limit_and_is_cleared_away(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import os
        import time

        children = 0
        try:
            for _ in range(1000):
                if os.fork() == 0:
                    time.sleep(3600)
                    os._exit(0)
                children += 1
        except BlockingIOError:
            return str(children)
        return "no limit"

    assert run(handler, processes=16, memory_bytes=2048 * MIB).text == "15"


def test_descriptors_are_limited(run: Run) -> None:
    ended = run(lambda **kwargs: [open("/dev/null") for _ in range(1000)])  # noqa: SIM115
    assert ended.error is not None and "Too many open files" in ended.error.message


def test_a_daemon_does_not_outlive_its_run(run: Run) -> None:
    # given: a grandchild in a session of its own, deaf to signals, that holds the log open
    def handler(**kwargs: Any) -> str:
        import os
        import signal
        import time

        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                while True:
                    time.sleep(0.01)
                    print("alive")
            os._exit(0)
        os.wait()
        return "left one behind"

    # when: the run ends, which it does only when every process of its PID namespace is dead
    ended = run(handler)

    assert ended.text == "left one behind"


@pytest.mark.parametrize(
    "words",
    [
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x03{}}",
        b"\x00\x00\x00\x02[]",
        b'\x00\x00\x00\x10{"kind":"upload"',
        b'\x00\x00\x00\x11{"kind":"upload"}',
        b'\x00\x00\x00\x0f{"kind":"away"}',
        b'\x00\x00\x00\x24{"kind":"ended","outcome":"abandoned"',
    ],
)
def test_what_is_written_into_the_executors_channel_is_a_crash(run: Run, words: bytes) -> None:
    def handler(**kwargs: Any) -> None:
        import os
        import time

        for descriptor in range(3, 64):
            try:
                os.write(descriptor, words)
            except OSError:
                continue
        time.sleep(3)

    ended = run(handler, wall_s=2.0, warning_s=0.0)

    assert ended.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)


def test_a_closed_channel_is_a_crash(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import os
        import time

        os.closerange(3, 256)
        time.sleep(3600)

    ended = run(handler)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "closed the channel" in ended.error.message
