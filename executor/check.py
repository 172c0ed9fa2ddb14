"""Loads handlers in a sandbox without calling them: for registrations (by long poll), and for an operator (JSON lines).

`python -m executor.check --runtime py3.7 --python /opt/py3.7/bin/python` reads {"id", "hook", "blob" (base64)} lines from its input
and writes an {"id", "loads", "text", "lacking"} line for each. That is what eventproc-admin check-runtime speaks.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import threading
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import structlog

from executor.ask import Registry
from executor.sandbox import filesystem
from executor.sandbox.job import MIB, Access, BtrdbAway, Job, Limits, Runtime, SandboxLost, SandboxUnavailable
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime
from executor.sandbox.sleep import SleepingRuntime
from schemas.contracts import all_arguments, documented_arguments, hook_names
from schemas.errors import TryLater
from schemas.generated import executorapi_pb2 as api
from schemas.records import Outcome
from telemetry import logs

log = structlog.get_logger()

POLL_S = 20.0
WALL_S = 20.0
MEMORY_BYTES = 256 * MIB
"""Beyond what the runtime holds; it comes out of the executor's reserve."""


@dataclass(frozen=True)
class Verdict:
    """loads: None when the sandbox could not say; text: why it does not, or why that is not known.

    lacking: modules that its code imports when it is called and that the runtime does not have.
    """

    loads: bool | None
    text: str
    lacking: tuple[str, ...] = ()


def check(runtime: SandboxedRuntime | SleepingRuntime, hook: str, blob: bytes) -> Verdict:
    """Loads it in a sandbox of its own and looks at its signature; blocks for WALL_S at most."""
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
    )
    try:
        ended = runtime.run(job)
    except (SandboxLost, BtrdbAway) as error:
        return Verdict(None, str(error))
    if ended.outcome is Outcome.SUCCEEDED:
        return Verdict(True, "", tuple(name for name in ended.text.split(", ") if name))
    why = ended.error.message if ended.error else ended.outcome.value
    return Verdict(None if ended.outcome is Outcome.TIMED_OUT else False, why)


class Checker:
    """Asks the registry for handlers that are being registered and answers, one at a time, until it is stopped."""

    def __init__(
        self, registry: Registry, executor: str, runtimes: Mapping[str, SandboxedRuntime | SleepingRuntime]
    ) -> None:
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
        runtime = self._runtimes.get(asked.runtime)
        if runtime is None:
            verdict = Verdict(None, f"the executor has no runtime {asked.runtime}")
        else:
            verdict = check(runtime, asked.hook, asked.blob)
        kind = {True: api.LOADS, False: api.REFUSED, None: api.NOT_TOLD}[verdict.loads]
        log.info("checked", runtime=asked.runtime, loads=verdict.loads, reason=verdict.text)
        self._registry.answer_check(asked.id, kind, verdict.text[:4000], verdict.lacking[:50])
        return 0.0


def main(arguments: list[str] | None = None) -> int:
    """Checks what its input lists; 2 when the runtime's sandbox cannot be had."""
    parser = argparse.ArgumentParser(prog="executor.check", description=__doc__)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--python", required=True, type=Path)
    given = parser.parse_args(arguments)
    logs.setup("check")
    runtime = SandboxedRuntime(Runtime(given.runtime, given.python), Access(None), warm=1, lowest=Level.POD)
    try:
        filesystem.check(runtime.runtime)
        runtime.start()
    except (SandboxUnavailable, OSError) as error:
        print(f"executor.check: {error}", file=sys.stderr)
        return 2
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            verdict = check(runtime, asked["hook"], base64.b64decode(asked["blob"]))
            print(json.dumps({"id": asked["id"], **asdict(verdict)}), flush=True)
    finally:
        runtime.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
