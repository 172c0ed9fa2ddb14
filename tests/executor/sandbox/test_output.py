"""What a handler prints, while it runs: whole lines, the key masked, the same as its log will have."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from executor.sandbox.mask import mask_of
from executor.sandbox.output import LONGEST, Lines, Output
from executor.sandbox.runtime import SandboxedRuntime

from .conftest import KEY, make_job

SECRETS = [KEY.encode(), base64.b64encode(KEY.encode()), KEY.encode().hex().encode()]
PIECES = st.lists(st.sampled_from([*SECRETS, b"\n", b"\r", b"a", b"\xff", "é".encode(), b"\0", b" "]), max_size=40)


def keeping(told: list[str], more: bool = True) -> Callable[[str], bool]:
    """Keeps what it is told, and says whether it wants more."""

    def keep(text: str) -> bool:
        told.append(text)
        return more

    return keep


@given(PIECES, st.lists(st.integers(1, 30), max_size=60))
def test_lines_are_what_the_log_has_however_they_come(pieces: list[bytes], sizes: list[int]) -> None:
    printed = b"".join(pieces) + b"\n"
    told: list[str] = []
    lines, output = Lines(mask_of(KEY), keeping(told)), Output(1 << 20)

    at = 0
    for size in [*sizes, len(printed)]:
        lines.add(printed[at : at + size])
        output.add(printed[at : at + size])
        at += size

    assert "".join(told) == output.text(mask_of(KEY))[0]


def test_a_line_without_end_is_not_kept_for_ever_and_one_who_wants_no_more_gets_no_more() -> None:
    told: list[str] = []
    endless = Lines(mask_of(KEY), keeping(told))
    enough = Lines(mask_of(KEY), keeping(told, False))

    endless.add(b"x" * (LONGEST + 1))
    endless.add(b"\nlost\n")
    enough.add(b"first\n")
    enough.add(b"second\n")

    assert told == ["first\n"]


def test_lines_come_while_the_handler_runs(sandbox: SandboxedRuntime) -> None:
    def handler(**kwargs: Any) -> str:
        import os
        import time

        print("key:", os.environ["BTRDB_API_KEY"])
        while not os.path.exists("/proc/self/nothing"):
            time.sleep(0.01)
        return "never"

    came, told = threading.Event(), []
    job = make_job(handler)

    def on_output(text: str) -> bool:
        told.append(text)
        came.set()
        return True

    ended: list[Exception] = []
    running = threading.Thread(target=_run, args=(lambda: sandbox.run(job, on_output=on_output), ended))
    running.start()
    assert came.wait(60)
    sandbox.kill(job.run_id, "seen enough")
    running.join(60)

    assert told == ["key: [API key]\n"] and len(ended) == 1


def _run(what: Callable[[], object], ended: list[Exception]) -> None:
    try:
        what()
    except Exception as error:
        ended.append(error)
