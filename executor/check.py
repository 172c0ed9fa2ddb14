"""Loads handlers in a sandbox without calling them: for registrations (by long poll), and for an operator (JSON lines).

`python -m executor.check --runtime py3.7 --python /opt/py3.7/bin/python` reads {"id", "hook", "requirements", "blob"} lines from its
input, the blob in base64, and writes an {"id", "loads", "text", "lacking"} line for each: what eventproc-admin check-runtime speaks.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import structlog

from executor.ask import Registry
from executor.packages import IndexAway, Packages
from executor.sandbox import filesystem
from executor.sandbox.job import (
    MIB,
    Access,
    BtrdbAway,
    Job,
    Limits,
    RequirementsRefused,
    Runtime,
    SandboxLost,
    SandboxUnavailable,
)
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime
from executor.sandbox.sleep import SleepingRuntime
from executor.settings import RequirementsSettings
from schemas.contracts import all_arguments, documented_arguments, hook_names
from schemas.errors import TryLater
from schemas.generated import executorapi_pb2 as api
from schemas.records import Outcome
from telemetry import logs
from telemetry.settings import from_environment

log = structlog.get_logger()

POLL_S = 20.0
WALL_S = 20.0
MEMORY_BYTES = 256 * MIB
"""Beyond what the runtime holds; it comes out of the executor's reserve."""
_NO_MORE_TASKS = ("Resource temporarily unavailable", "can't start new thread")
"""What is raised where one more process or thread would be too many (EAGAIN of fork and clone)."""


@dataclass(frozen=True)
class Verdict:
    """loads: None when the sandbox could not say; text: why it does not, or why that is not known.

    lacking: modules that its code imports when it is called and that the runtime does not have.
    """

    loads: bool | None
    text: str
    lacking: tuple[str, ...] = ()


def check(runtime: SandboxedRuntime | SleepingRuntime, hook: str, blob: bytes, packages: str = "") -> Verdict:
    """Loads it in a sandbox of its own and looks at its signature; blocks for WALL_S at most.

    packages: the name of the folder of its requirements.
    """
    if hook not in hook_names():
        return Verdict(False, f"{hook[:60]!r} is no hook; there are {', '.join(hook_names())}")
    job = Job(
        run_id=str(uuid.uuid4()),
        blob=blob,
        arguments=dict.fromkeys(all_arguments(hook)),
        documented=documented_arguments(hook),
        api_key="",
        limits=Limits(wall_s=WALL_S, warning_s=0.0, memory_bytes=MEMORY_BYTES, scratch_bytes=64 * MIB, processes=16),
        handler="",
        only_load=True,
        packages=packages,
    )
    try:
        ended = runtime.run(job)
    except (SandboxLost, BtrdbAway) as error:
        return Verdict(None, str(error))
    if ended.outcome is Outcome.SUCCEEDED:
        return Verdict(True, "", tuple(name for name in ended.text.split(", ") if name))
    why = ended.error.message if ended.error else ended.outcome.value
    if ended.at_limit or any(said in why for said in _NO_MORE_TASKS):
        return Verdict(None, f"loading it takes more than the check has, which is less than a run has: {why}")
    return Verdict(False, why)


class Checker:
    """Asks the registry for handlers that are being registered and answers, one at a time, until it is stopped."""

    def __init__(
        self,
        registry: Registry,
        executor: str,
        runtimes: Mapping[str, SandboxedRuntime | SleepingRuntime],
        packages: Packages,
        memory_bytes: int = 0,
    ) -> None:
        """memory_bytes: the most that a run is given here; 0: that is not told."""
        self._memory_bytes = memory_bytes
        self._packages = packages
        self._registry = registry
        self._executor = executor
        self._runtimes = runtimes

    def run(self, stop: threading.Event) -> None:
        """Blocks until stop is set and the question under way has been answered."""
        while not stop.is_set():
            try:
                wait_s = self.turn()
            except TryLater as error:
                log.debug("no checks: the registry is away", reason=error.reason)
                wait_s = 2.0
            except grpc.RpcError as error:
                # a registry that knows no checks yet; what is wrong with our token the claims tell
                log.warning("no checks", reason=str(error))
                wait_s = 60.0
            stop.wait(wait_s)

    def turn(self) -> float:
        """One question, and its check when there is one; after how many seconds to ask again. Raises TryLater."""
        answer = self._registry.next_check(self._executor, list(self._runtimes), POLL_S)
        if not answer.HasField("check"):
            return answer.again_after_s
        asked = answer.check
        verdict = self._check(asked)
        kind = {True: api.LOADS, False: api.REFUSED, None: api.NOT_TOLD}[verdict.loads]
        log.info("checked", runtime=asked.runtime, loads=verdict.loads, reason=verdict.text)
        self._registry.answer_check(
            api.AnswerCheckRequest(
                id=asked.id,
                verdict=kind,
                text=verdict.text[:4000],
                lacking=verdict.lacking[:50],
                memory_bytes=self._memory_bytes,
            )
        )
        return 0.0

    def _check(self, asked: api.Check) -> Verdict:
        runtime = self._runtimes.get(asked.runtime)
        if runtime is None:
            return Verdict(None, f"the executor has no runtime {asked.runtime}")
        return _check_with(self._packages, asked.runtime, runtime, asked.hook, asked.blob, list(asked.requirements))


def _check_with(
    packages: Packages,
    name: str,
    runtime: SandboxedRuntime | SleepingRuntime,
    hook: str,
    blob: bytes,
    requirements: Sequence[str],
) -> Verdict:
    """With its requirements, which are installed when they are not; blocks for an install then."""
    if not requirements:
        return check(runtime, hook, blob)
    try:
        with packages.lent(name, requirements) as lock:
            return check(runtime, hook, blob, lock)
    except RequirementsRefused as error:
        return Verdict(False, str(error))
    except (IndexAway, SandboxLost) as error:
        return Verdict(None, str(error))


def main(arguments: list[str] | None = None) -> int:
    """Checks what its input lists; 2 when the runtime's sandbox cannot be had."""
    parser = argparse.ArgumentParser(prog="executor.check", description=__doc__)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--python", required=True, type=Path)
    given = parser.parse_args(arguments)
    logs.setup("check")
    with tempfile.TemporaryDirectory(prefix="eventproc-check-") as folder:
        Path(folder).chmod(0o755)
        try:
            return _check_all(Runtime(given.runtime, given.python), Path(folder))
        except (SandboxUnavailable, OSError, ValueError) as error:
            print(f"executor.check: {error}", file=sys.stderr)
            return 2


def _check_all(one: Runtime, folder: Path) -> int:
    settings = from_environment(RequirementsSettings)
    packages = Packages(folder, {one.name: one.python}, settings.index(), settings.bounds(1024 * MIB))
    runtime = SandboxedRuntime(one, Access(None, packages=folder), warm=1, lowest=Level.POD)
    filesystem.check(one)
    runtime.start()
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            blob = base64.b64decode(asked["blob"])
            verdict = _check_with(packages, one.name, runtime, asked["hook"], blob, asked["requirements"])
            print(json.dumps({"id": asked["id"], **asdict(verdict)}), flush=True)
    finally:
        runtime.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
