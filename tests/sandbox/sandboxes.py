"""Sandboxes for attacks: whole ones, ones with steps left out, one in a process that is like a pod, and none at all."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import dill
import pytest

from executor.sandbox import namespaces, plan, pod
from executor.sandbox.job import MIB, Access, Ended, Job, Runtime
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIME = Runtime("py3.11", Path(sys.executable))
HOST_NETWORK = "own network"
"""Not a step but a part of one: left out, a run stays in the host's network."""


def weakened(
    *without: str,
    level: Level | None = None,
    lowest: Level = Level.NAMESPACES,
    access: Access | None = None,
    scratch_dir: Path | None = None,
) -> SandboxedRuntime:
    """A started sandbox whose plan lacks the named steps, every one of which must be there; none: a whole one.

    level: this level and no other. Its zygote imports little, so that it starts quickly.
    """
    made = SandboxedRuntime(
        RUNTIME, access or Access(None), warm=1, scratch_bytes=64 * MIB, lowest=lowest, scratch_dir=scratch_dir
    )
    with (
        mock.patch.object(plan, "make", _lacking(plan.make, without)),
        mock.patch.object(pod, "make", _lacking(pod.make, without)),
        mock.patch.object(plan, "WARM", ("dill", "btrdb") if access else ("dill",)),
        mock.patch("executor.sandbox.runtime.at_least", lambda _: (level,)) if level else mock.MagicMock(),
    ):
        made.start()
    return made


def _lacking(make: Callable[..., plan.Plan], names: tuple[str, ...]) -> Callable[..., plan.Plan]:
    def weaker(*given: Any) -> plan.Plan:
        whole = make(*given)
        steps = [*whole.prepare, *whole.isolate, *(whole.keep or ())]
        unknown = set(names) - {step.name for step in steps} - {HOST_NETWORK}
        assert not unknown, f"no such steps: {unknown}"

        def kept(some: tuple[plan.Step, ...]) -> tuple[plan.Step, ...]:
            left = [step for step in some if step.name not in names]
            if HOST_NETWORK in names:
                given = {"flags": namespaces.OF_CHILD & ~namespaces.NEW_NET}
                left = [dataclasses.replace(s, given=given) if s.call == "unshare" else s for s in left]
            return tuple(left)

        return dataclasses.replace(
            whole,
            prepare=kept(whole.prepare),
            isolate=kept(whole.isolate),
            keep=None if whole.keep is None else kept(whole.keep),
        )

    return weaker


@dataclasses.dataclass(frozen=True)
class Attack:
    """A handler that returns 'reached' when it got through, and the steps without which it does.

    full, pod: left out at that level; None: not shown there. bare: shown outside any sandbox, 'root' when only root can.
    at: the levels at which it is promised to be held.
    """

    do: Callable[..., Any]
    full: tuple[str, ...] | None = None
    pod: tuple[str, ...] | None = None
    bare: str | None = None
    at: tuple[str, ...] = ("full", "pod")
    given: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.do.__name__)


def everywhere(attacks: Sequence[Attack]) -> list[Any]:
    """(attack, level): where each is to be held."""
    return [pytest.param(one, level, id=f"{one.name}-{level}") for one in attacks for level in one.at]


def weaknesses(attacks: Sequence[Attack]) -> list[Any]:
    """(attack, level or bare, steps left out): where each is to succeed."""
    found = []
    for one in attacks:
        ways = [("full", one.full), ("pod", one.pod), ("bare", None if one.bare is None else (one.bare,))]
        known = [(level, without) for level, without in ways if without is not None]
        assert known, f"{one.name} is never shown to succeed"
        found += [pytest.param(one, *way, id=f"{one.name}-{way[0]}") for way in known]
    return found


class Pod:
    """A process that is like a pod (in_pod.py), asked one thing at a time."""

    def __init__(self, like: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sandbox.in_pod", like],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.pid = self._process.pid
        self._lock = threading.Lock()

    def ask(self, question: Any) -> Any:
        """The answer; raises it when it is an exception."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, job: Job, without: tuple[str, ...] = ()) -> Ended:
        """Runs a job in the pod's sandbox, or in one without some steps."""
        ended: Ended = self.ask((job, without))
        return ended

    def close(self) -> None:
        """Ends it; blocks until it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def bare(handler: Callable[..., Any], **arguments: Any) -> str:
    """What a handler returns in a process without any sandbox; the last line of its traceback when it raises."""
    code = "import dill, sys\nhandler, arguments = dill.load(sys.stdin.buffer)\nprint(handler(**arguments), end='')"
    handler.__module__ = "__main__"
    asked = dill.dumps((handler, arguments), recurse=True)
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, timeout=60, check=False)
    said: str = done.stdout.decode() or done.stderr.decode().strip().rpartition("\n")[2]
    return said
