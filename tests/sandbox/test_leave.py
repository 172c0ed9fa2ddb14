"""What a run leaves for the next one: nothing. Its files, its memory, what it changes in the process it was forked from."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.sandbox.job import Ended
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime
from executor.sandbox.scratch import PREFIX, Folders
from schemas.records import Outcome

from .conftest import Stands, in_thread, make_job
from .sandboxes import weakened


def leaves_traces(**kwargs: Any) -> str:
    """Wherever a process can put something that is not plainly its own."""
    import builtins
    import fcntl
    import json
    import os
    import random
    import sys

    builtins.left = "here"  # type: ignore[attr-defined]
    json.left = "here"  # type: ignore[attr-defined]
    sys.modules["left"] = json
    os.environ["LEFT"] = "here"
    random.seed(1)
    os.umask(0)
    for folder in (os.environ["TMPDIR"], os.environ["HOME"], "/dev/shm", "/var/tmp", "/run"):
        try:
            with open(folder + "/left", "w") as file:
                file.write("here")
        except OSError:
            continue
    for descriptor in (0, 1, 2):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
    return "left"


def looks_for_traces(**kwargs: Any) -> str:
    import builtins
    import fcntl
    import json
    import os
    import sys

    found = [name for name, there in {
        "builtins": hasattr(builtins, "left"),
        "module": hasattr(json, "left"),
        "modules": "left" in sys.modules,
        "environment": "LEFT" in os.environ,
        "umask": os.umask(0o022) == 0,
        "standard input": bool(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_NONBLOCK),
    }.items() if there]  # fmt: skip
    for folder in (os.environ["TMPDIR"], os.environ["HOME"], "/dev/shm", "/var/tmp", "/run"):
        found += [folder] if os.path.exists(folder + "/left") else []
    return " ".join(found) or "nothing"


def test_nothing_is_kept_for_the_next_run(stands: Stands, level: str) -> None:
    assert stands.run(level, leaves_traces).text == "left"

    assert stands.run(level, looks_for_traces).text == "nothing"


def test_traces_are_found_without_the_steps(stands: Stands) -> None:
    # given: no scratch of its own, and the zygote's standard input
    without = ("mount the scratch", "begin a session", "become nobody", "enter own user namespace")
    left = stands.run("full", leaves_traces, without)
    assert left.text == "left", left

    found = stands.run("full", looks_for_traces, without).text

    assert "standard input" in found and "/tmp" in found.split()


def test_no_memory_is_shared_with_the_zygote(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        with open("/proc/self/maps") as file:
            return "\n".join(line for line in file if line.split()[1][1] == "w" and line.split()[1][3] == "s") or "none"

    assert stands.run(level, handler).text == "none"


def test_what_is_written_into_memory_is_not_the_next_runs(stands: Stands, level: str) -> None:
    # given: a page that all children have of the zygote, changed where Python does not look
    def handler(**kwargs: Any) -> str:
        import ctypes
        import json

        text = json.__doc__ or ""
        before = text[:4]
        ctypes.memmove(id(text) + len(text.encode()) - len(text) + 48, b"LEFT", 4)
        return before

    first = stands.run(level, handler)
    assert first.outcome is not Outcome.REFUSED

    assert "LEFT" not in stands.run(level, handler).text


def test_two_runs_draw_different_numbers(run: Callable[..., Ended]) -> None:
    def handler(**kwargs: Any) -> str:
        import random

        import numpy as np

        return f"{random.random()} {np.random.random()}"

    assert run(handler).text != run(handler).text


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for scratch folders; its path is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="ep-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


STUBBORN = {
    "folders that are locked": "os.makedirs('a/b'); os.chmod('a/b', 0); os.chmod('a', 0)",
    "folders deeper than a path is long": "[(os.mkdir('d' * 200), os.chdir('d' * 200)) for _ in range(1500)]",
    "names that are no text": "open(b'\\xff\\xfe', 'w')",
    "links to elsewhere": "os.symlink('/usr', 'usr'); os.symlink('/', 'home/root')",
    "pipes and sockets": "os.mkfifo('pipe'); __import__('socket').socket(1).bind('sock')",
    "many files": "[open(str(n), 'w').close() for n in range(3000)]",
}


@pytest.mark.parametrize("what", STUBBORN)
def test_a_folder_is_removed_whatever_is_in_it(place: Path, what: str) -> None:
    # given: a sandbox without mounts, whose folders are in a place of this test's
    sandbox = weakened(level=Level.POD, scratch_dir=place)
    code = STUBBORN[what]

    def handler(**kwargs: Any) -> str:
        import os

        os.chdir(os.environ["TMPDIR"])
        exec(code, {"os": os})
        return "made"

    job = make_job(handler)
    # when
    ended = sandbox.run(job)
    # then: what is there now is the child's that waits for the next job
    left = [path for path in place.glob(f"{PREFIX}*/*/tmp") if os.listdir(path) != ["home"]]
    sandbox.close()

    assert ended.text == "made", ended
    assert left == []
    assert list(place.iterdir()) == []
    assert Path("/usr/bin").exists()


def test_the_folders_of_an_executor_that_was_killed_are_removed_by_the_next(place: Path) -> None:
    # given: a folder whose lock nobody holds, one whose executor lives, and somebody else's
    dead, alive, other = place / f"{PREFIX}dead", Folders(place), place / "other"
    for folder in (dead, other):
        (folder / "7" / "tmp").mkdir(parents=True)
        (folder / "lock").touch()
    kept = alive.make(0)

    Folders(place).close()

    assert not dead.exists() and other.exists() and kept.tmp.exists()
    alive.close()


def test_a_run_that_is_lost_leaves_no_folder(place: Path) -> None:
    # given: a run at level pod that goes on and on
    sandbox = weakened(level=Level.POD, scratch_dir=place)
    begun = threading.Event()
    job = make_job(lambda **kwargs: __import__("time").sleep(3600))
    thread, results = in_thread(lambda: sandbox.run(job, on_started=begun.set))
    assert begun.wait(60)
    # when
    sandbox.close()
    thread.join(60)
    # then
    assert len(results) == 1 and isinstance(results[0], Exception)
    assert list(place.iterdir()) == []


def test_a_zygote_that_is_killed_takes_its_runs_along(private_sandbox: Callable[..., SandboxedRuntime]) -> None:
    sandbox = private_sandbox()
    begun = threading.Event()
    job = make_job(lambda **kwargs: __import__("time").sleep(3600))
    thread, results = in_thread(lambda: sandbox.run(job, on_started=begun.set))
    assert begun.wait(60)
    zygote = sandbox._pool._zygote
    assert zygote is not None and zygote._process is not None

    zygote._process.kill()
    thread.join(60)

    assert "the zygote died" in str(results[0])
    assert sandbox.run(make_job(lambda **kwargs: "another")).text == "another"
