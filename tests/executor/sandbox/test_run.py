"""How runs end: each outcome, with its true cause told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from executor.sandbox.job import Ended
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import EVENT, KEY, make_job, pickled

Run = Callable[..., Ended]


def test_a_returned_text_is_the_runs_text(run: Run) -> None:
    def handler(File: str, **kwargs: Any) -> str:
        print("looking at", File)
        return f"seen {File}"

    ended = run(handler)

    assert (ended.outcome, ended.text, ended.error) == (Outcome.SUCCEEDED, "seen a.zip", None)
    assert ended.log == "looking at a.zip\n"
    assert ended.started_at_ns <= ended.ended_at_ns


def test_none_is_no_text_and_a_number_is_shown(run: Run) -> None:
    assert run(lambda **kwargs: None).text == ""
    assert run(lambda **kwargs: 41.5).text == "41.5"


def test_a_handler_with_kwargs_alone_gets_the_documented_five(run: Run) -> None:
    assert run(lambda **kwargs: " ".join(sorted(kwargs))).text == "DataSets File RequestID SubmittedAt btrdb"


def test_a_handler_gets_tags_when_its_signature_names_them(run: Run) -> None:
    assert run(lambda Tags, **kwargs: f"{Tags} {sorted(kwargs)[0]}").text == "['line-7'] DataSets"


def test_a_handler_that_names_some_arguments_gets_those(run: Run) -> None:
    assert run(lambda File: File).text == EVENT["File"]


def test_on_started_is_called_once_before_the_first_line(sandbox: SandboxedRuntime) -> None:
    calls: list[int] = []
    sandbox.run(make_job(lambda **kwargs: None), on_started=lambda: calls.append(1))
    assert calls == [1]


def test_what_a_handler_raises_is_told_with_the_users_own_lines(run: Run) -> None:
    # given: a function as a notebook's cell has it
    source = "def handler(**kwargs):\n    faulted = 1\n    return faulted / 0  # the line\n"
    names: dict[str, Any] = {}
    exec(compile("\n\n" + source, "<ipython-input-3-abc>", "exec"), names)

    ended = run(names["handler"], source=source, first_line=3)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None
    assert (ended.error.type, ended.error.message) == ("ZeroDivisionError", "division by zero")
    assert "line 5, in handler\n    return faulted / 0  # the line" in ended.error.traceback
    assert "inside" not in ended.error.traceback


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_exceptions_that_are_no_errors_are_failures_too(run: Run, kind: str) -> None:
    def handler(**kwargs: Any) -> None:
        import builtins

        raise getattr(builtins, kind)("stop")

    ended = run(handler)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None and ended.error.type == kind


def test_an_unprintable_result_is_a_failure(run: Run) -> None:
    def handler(**kwargs: Any) -> object:
        class Shy:
            def __str__(self) -> str:
                raise RuntimeError("no")

        return Shy()

    ended = run(handler)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None and ended.error.type == "RuntimeError"


def test_an_exception_whose_own_methods_raise_is_told_all_the_same(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        class Broken(Exception):
            def __str__(self) -> str:
                raise ValueError("no")

            __repr__ = __str__

        raise Broken

    ended = run(handler)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None and ended.error.type.endswith("Broken")
    assert "cannot be shown" in ended.error.message


def test_surrogates_and_nul_arrive_as_valid_text(run: Run) -> None:
    ended = run(lambda **kwargs: "a\ud800b\x00c")
    assert ended.text == "a\\ud800b\\x00c"


def test_os_exit_is_a_crash_that_names_the_status(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import os

        os._exit(7)

    ended = run(handler)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "status 7" in ended.error.message


def test_a_segmentation_fault_is_a_crash_that_names_the_signal(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import ctypes

        print("before")
        ctypes.string_at(0)

    ended = run(handler)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "SIGSEGV" in ended.error.message
    assert ended.log.startswith("before\n")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP", "SIGTERM", "SIGABRT"])
def test_a_deadly_signal_to_itself_is_a_crash(run: Run, name: str) -> None:
    def handler(**kwargs: Any) -> str:
        import os
        import signal

        os.kill(os.getpid(), getattr(signal, name))
        return "still here"

    ended = run(handler)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "SIGSYS" in ended.error.message and "to itself" not in ended.text


def test_a_missing_module_is_refused_by_name(run: Run) -> None:
    # given: a pickle that refers to a module that only the user's notebook has
    blob = b"cmy_own_helpers\nrun\n."

    ended = run(blob)

    assert ended.outcome is Outcome.REFUSED
    assert ended.error is not None and "'my_own_helpers'" in ended.error.message


@pytest.mark.parametrize("blob", [b"", b"no pickle", b"\x80\x04K\x01."])
def test_what_is_no_pickled_function_is_refused(run: Run, blob: bytes) -> None:
    ended = run(blob)
    assert ended.outcome is Outcome.REFUSED
    assert ended.error is not None and ended.error.message


def test_an_argument_that_no_event_has_is_refused_by_name(run: Run) -> None:
    ended = run(lambda Datasets: None)
    assert ended.outcome is Outcome.REFUSED
    assert ended.error is not None and "'Datasets'" in ended.error.message and "DataSets" in ended.error.message


def test_the_key_is_masked_in_text_log_and_exception(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import base64
        import os
        import urllib.parse

        key = os.environ["BTRDB_API_KEY"]
        print(key, urllib.parse.quote(key, safe=""), base64.b64encode(b"Bearer " + key.encode()).decode())
        raise ValueError("refused: " + key)

    ended = run(handler)
    texts = ended.log + repr(ended.error)

    assert ended.outcome is Outcome.FAILED
    assert KEY not in texts and "sk-alice%2Bsecret" not in texts and "c2stYWxpY2" not in texts
    assert ended.log.count("[API key]") == 3
    assert KEY not in run(lambda **kwargs: __import__("os").environ["BTRDB_API_KEY"]).text


def test_old_pickles_see_an_empty_main(run: Run) -> None:
    assert (
        run(pickled(lambda **kwargs: str(sorted(n for n in __import__("__main__").__dict__ if n[0] != "_")))).text
        == "[]"
    )


def test_uploads_are_collected_from_the_scratch_and_nowhere_else(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        import os
        import sys
        import types

        client = types.ModuleType("btrdbextras.eventproc")
        with open("plot.png", "wb") as file:
            file.write(b"png" * 1000)
        os.symlink("/etc/passwd", "link")
        os.mkfifo("pipe")
        client._uploads = {  # type: ignore[attr-defined]
            "a" * 32: ["plot.png", "the plot.png"],
            "b" * 32: ["link", "link"],
            "c" * 32: ["pipe", "pipe"],
            "d" * 32: ["/etc/hosts", "hosts"],
            "e" * 31: ["plot.png", "bad code"],
        }
        sys.modules["btrdbextras.eventproc"] = client
        raise ValueError("uploads are collected all the same")

    ended = run(handler)

    assert [(u.code, u.name, u.size) for u in ended.uploads] == [("a" * 32, "the plot.png", 3000)]
    assert ended.uploads[0].path is not None
    assert ended.uploads[0].path.read_bytes() == b"png" * 1000


@pytest.mark.parametrize(
    ("how", "outcome"), [("time", Outcome.TIMED_OUT), ("memory", Outcome.OUT_OF_MEMORY)], ids=["time", "memory"]
)
def test_uploads_are_collected_of_a_run_that_reached_a_limit_and_lived_to_tell(
    run: Run, how: str, outcome: Outcome
) -> None:
    def handler(**kwargs: Any) -> None:
        import sys
        import time
        import types

        client = types.ModuleType("btrdbextras.eventproc")
        with open("so far.csv", "wb") as file:
            file.write(b"1,2\n")
        client._uploads = {"a" * 32: ["so far.csv", "so far.csv"]}  # type: ignore[attr-defined]
        sys.modules["btrdbextras.eventproc"] = client
        if how == "memory":
            bytearray(1 << 34)
        time.sleep(60)

    ended = run(handler, wall_s=2.0, warning_s=1.0)

    assert ended.outcome is outcome
    assert [(u.name, u.size) for u in ended.uploads] == [("so far.csv", 4)]


def test_memory_that_was_asked_for_and_never_had_is_told_apart_from_memory_that_was_used(run: Run) -> None:
    ended = run(lambda **kwargs: bytearray(1 << 34), memory_bytes=128 << 20)

    assert ended.outcome is Outcome.OUT_OF_MEMORY and ended.error is not None
    assert "its limit is 128 MiB; this allocation was refused, the peak until then was" in ended.error.message


def test_a_traceback_ends_with_the_users_line_when_the_time_was_up(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        __import__("time").sleep(60)

    ended = run(handler, wall_s=2.0, warning_s=1.0)

    assert ended.error is not None and "child.py" not in ended.error.traceback
    last = ended.error.traceback.rstrip().splitlines()
    assert (
        last[-1] == "TimeLimit: the handler's time limit of 2 s ends in 1 s" and "in handler" in ended.error.traceback
    )


def test_random_numbers_differ_between_runs(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import random

        import numpy as np

        return f"{random.random()} {np.random.random()}"

    assert run(handler).text != run(handler).text
