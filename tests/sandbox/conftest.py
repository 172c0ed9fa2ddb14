"""Where attacks are run: whole sandboxes at two levels, weakened ones, and a host with something worth stealing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.sandbox.job import MIB, Access, Ended
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome
from tests.executor.sandbox.conftest import EVENT, RUNTIME, btrdb_endpoint, make_job, networked, run, sandbox
from tests.sandbox.sandboxes import Attack, Pod, bare, weakened

__all__ = ["btrdb_endpoint", "make_job", "networked", "run", "sandbox"]

CANARY = "canary-that-nobody-may-read"
REACHED = "reached"
SYSTEM_ERRORS = {"OSError", "ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError"} | {
    one.__name__ for one in OSError.__subclasses__()
}


class Stands:
    """Runs handlers at a level, with steps left out where a test says so. What a handler must know of the host is its File."""

    def __init__(self, whole: SandboxedRuntime, pod: Pod, facts: dict[str, Any]) -> None:
        self._whole = whole
        self._pod = pod
        self._weak: dict[tuple[str, ...], SandboxedRuntime] = {}
        self.facts = facts

    def run(self, level: str, handler: Callable[..., Any], without: tuple[str, ...] = (), **given: Any) -> Ended:
        """One run of a handler; given: as make_job takes it."""
        facts = {**self.facts, "executor": self._pod.pid if level == "pod" else os.getpid()}
        job = make_job(handler, arguments={**EVENT, "File": json.dumps(facts)}, **given)
        if level == "pod":
            return self._pod.run(job, without)
        if not without:
            return self._whole.run(job)
        if without not in self._weak:
            self._weak[without] = weakened(*without, level=Level.NAMESPACES)
        return self._weak[without].run(job)

    def holds(self, attack: Attack, level: str) -> None:
        """Fails unless the attack is refused at a level."""
        ended = self.run(level, attack.do, **attack.given)
        assert held(ended), ended

    def lets_through(self, attack: Attack, level: str, without: tuple[str, ...]) -> None:
        """Fails unless the attack succeeds at a level without some steps, or bare; skips where only root can show it."""
        if level == "bare":
            if without == ("root",) and os.geteuid() != 0:
                pytest.skip("only root can do it, sandbox or not")
            said = bare(attack.do, File=json.dumps({**self.facts, "executor": os.getpid()}))
            assert said.startswith(REACHED), said
        else:
            ended = self.run(level, attack.do, without, **attack.given)
            if ended.error is not None and "not supported by protocol" in ended.error.message:
                pytest.skip("this kernel has no such sockets, sandbox or not")
            assert ended.text.startswith(REACHED), ended

    def close(self) -> None:
        """Ends the weakened ones."""
        for one in self._weak.values():
            one.close()


def held(ended: Ended) -> bool:
    """Whether an attack was refused: by an error of the system's, by the filter's kill, or it says itself what it met."""
    if REACHED in ended.text:
        return False
    if ended.error is None:
        return ended.outcome is Outcome.SUCCEEDED
    return ended.error.type.rpartition(".")[2] in SYSTEM_ERRORS or "SIGSYS" in ended.error.message


@pytest.fixture(scope="session")
def pod(facts: dict[str, Any]) -> Iterator[Pod]:
    """A pod under the default seccomp profile, with something worth stealing in its environment."""
    one = Pod("default")
    yield one
    one.close()


@pytest.fixture(scope="session")
def facts() -> Iterator[dict[str, Any]]:
    """A host with a file and servers that everybody on it can read and reach."""
    folder = Path(tempfile.mkdtemp(prefix="eventproc-attack-", dir="/var/tmp"))  # no scratch is mounted there
    folder.chmod(0o777)
    secret = folder / "secret"
    secret.write_text(CANARY)
    secret.chmod(0o666)
    os.environ["EVENTPROC_CANARY"] = CANARY
    found: dict[str, Any] = {"secret": str(secret), "folder": str(folder), "canary": CANARY}
    found["niceness"] = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.ExitStack() as stack:
        for name, family, kind, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0eventproc-attack-{os.getpid()}"),
            ("path", socket.AF_UNIX, socket.SOCK_STREAM, f"{folder}/socket"),
        ):
            server = stack.enter_context(socket.socket(family, kind))
            try:
                server.bind(address)
            except OSError:  # a machine without IPv6
                continue
            if kind == socket.SOCK_STREAM:
                server.listen()
            found[name] = server.getsockname()
            if isinstance(found[name], bytes):
                found[name] = "\0" + found[name][1:].decode()
        os.chmod(f"{folder}/socket", 0o777)
        yield found
    del os.environ["EVENTPROC_CANARY"]
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def stands(sandbox: SandboxedRuntime, facts: dict[str, Any], pod: Pod) -> Iterator[Stands]:
    """Both levels and whatever is weakened."""
    one = Stands(sandbox, pod, facts)
    yield one
    one.close()


@pytest.fixture(params=["full", pytest.param("pod", marks=pytest.mark.slow)])
def level(request: pytest.FixtureRequest) -> str:
    """The levels at which an attack is tried; again in a pod in make test-all, beside what attacks of ATTACKS show there each time."""
    return str(request.param)


@pytest.fixture
def private_sandbox() -> Iterator[Callable[..., SandboxedRuntime]]:
    """Makes sandboxes of a test's own."""
    made = []

    def make(**given: Any) -> SandboxedRuntime:
        one = SandboxedRuntime(RUNTIME, given.pop("access", Access(None)), warm=1, scratch_bytes=64 * MIB, **given)
        one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Runs beside the test; what it returned or raised is in the list when the thread has ended."""
    results: list[Any] = []

    def target() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    return thread, results
