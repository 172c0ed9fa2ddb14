"""Task -> claim -> sandboxed run -> result. The step of the executor's processing loop, and the threads behind its slots."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from executor.ask import Blobs, NoSuchBlob, Registry
from executor.follow import Follow
from executor.keep import Keeper
from executor.lease import Leases
from executor.packages import IndexAway, Packages
from executor.sandbox.job import BtrdbAway, Ended, Job, Limits, RequirementsRefused, SandboxLost
from executor.sandbox.runtime import SandboxedRuntime
from executor.sandbox.sleep import SleepingRuntime
from executor.settings import MIB, ExecutorSettings
from faults import point
from schemas.contracts import documented_arguments
from schemas.encoding import AVRO_TYPE, decode, encode
from schemas.errors import InvalidMessage, TryLater
from schemas.generated import executorapi_pb2 as api
from schemas.records import Outcome, Result, RunError, Task, Upload, task_from, to_plain
from schemas.topics import RESULTS
from stream.broker import Producer
from stream.letters import Rejected
from stream.messages import Message
from telemetry import metrics, traces
from telemetry.logs import bound

log = structlog.get_logger()

REMEMBERED = 10_000
BTRDB_RED_S = 30.0
TURN_S = 1.0
KILLED_S = 240.0  # longer than a lease: what is killed has been handed back, or is nobody's, by then
NO_FILES = Keeper(None)
KEEP_S = 300.0
"""How long a handler's files wait for a storage that is away; then its result goes without them, and its log says so."""

_LESS_MEMORY = (
    "eventproc: it asks for %.0f MiB of memory; this executor gives %.0f MiB at most (EXECUTOR_MEMORY_BYTES)\n"
)

T = TypeVar("T")


class LeaseGone(Exception):
    """The run is no longer ours: whatever comes of it does not count."""


class Execute:
    """Claims tasks as slots are free and runs each claimed one in a thread of its own; never holds an offset for a handler."""

    def __init__(
        self,
        settings: ExecutorSettings,
        registry: Registry,
        producer: Producer,
        runtimes: Mapping[str, SandboxedRuntime | SleepingRuntime],
        boot_id: str,
        keeper: Keeper = NO_FILES,
        ready: Callable[[str, bool, str], None] = lambda name, ok, why: None,
        packages: Packages | None = None,
    ) -> None:
        """runtimes: sandboxes by runtime name; boot_id: of this process, new at each start; keeper: of handlers' files.

        ready: told whether BTrDB answers the runs' children, as Health.ready takes it. packages: the requirements of handlers;
        None: a handler that has some is refused.
        """
        self._packages = packages
        self._settings = settings
        self._registry = registry
        self._producer = producer
        self._runtimes = runtimes
        self._boot_id = boot_id
        self._keeper = keeper
        self._ready = ready
        self._btrdb_red_until = 0.0
        self._blobs = Blobs(registry.fetch_blob, settings.blob_cache_bytes)
        self.leases = Leases(registry, boot_id, settings.name, settings.renew_s, self._kill)
        self.follow = Follow(registry)
        self._threads = ThreadPoolExecutor(settings.slots, thread_name_prefix="slot")
        self._changed = threading.Condition()
        self._running: dict[str, tuple[str, str]] = {}  # run id -> (lease id, runtime)
        self._begun: set[str] = set()
        self._taken: dict[str, None] = {}  # leases ever started here, the newest REMEMBERED
        self._failure: BaseException | None = None
        self._stopping = False
        metrics.slots.set(settings.slots)

    def free_slots(self) -> int:
        """How many tasks may be claimed now; raises what a slot's thread failed with, so that the process stops."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if 0 < self._btrdb_red_until < time.monotonic():  # nobody has complained for a while, or nothing has run
                self._btrdb(True, "")
            return 0 if self._stopping else self._settings.slots - len(self._running)

    def _btrdb(self, answers: bool, why: str) -> None:
        if not answers or self._btrdb_red_until:
            self._btrdb_red_until = 0.0 if answers else time.monotonic() + BTRDB_RED_S
            self._ready("btrdb", answers, why)

    def wait_for_slot(self, timeout_s: float) -> None:
        """Blocks until a slot is free or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or len(self._running) < self._settings.slots, timeout_s)

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        """Claims the batch in one call and starts what was answered with a run; blocks for the call only.

        When it returns the tasks' offsets may be committed: what is not ours now, the sweeper invites again.
        Raises TryLater when the registry is away; the same batch asks with the same nonce, so nothing is started twice.
        """
        tasks: list[Task] = []
        rejected: list[Rejected] = []
        for message in batch:
            try:
                tasks.append(task_from(decode("task", message.value, message.headers)))
            except InvalidMessage as error:
                rejected.append(Rejected(message, error.reason))
            except ValueError as error:
                rejected.append(Rejected(message, f"task: {error}"))
        if tasks:
            self._claim(list(dict.fromkeys(task.run_id for task in tasks)), batch)
        return rejected

    def _claim(self, run_ids: Sequence[str], batch: Sequence[Message]) -> None:
        places = [f"{m.topic}/{m.partition}/{m.offset}" for m in batch]
        nonce = hashlib.sha256(" ".join(places).encode()).hexdigest()[:32]
        asked_at, in_hand = time.monotonic(), time.time_ns()
        answer = self._registry.claim(self._boot_id, nonce, self._settings.name, run_ids)
        bodies = {event.key: event.body for event in answer.events}
        for given in answer.answers:
            kind = given.WhichOneof("answer")
            metrics.claims_total.labels(answer=kind or "drop").inc()
            if kind == "run":
                self._start(given.run_id, given.run, bodies[given.run.event_key], asked_at, answer.lease_s, in_hand)
            elif kind is not None:
                log.info("not claimed", run_id=given.run_id, answer=kind, reason=getattr(given, kind).reason)

    def _start(self, run_id: str, run: api.Run, body: bytes, asked_at: float, lease_s: float, in_hand: int) -> None:
        with self._changed:
            if run.lease_id in self._taken:
                return
            self._taken[run.lease_id] = None
            while len(self._taken) > REMEMBERED:
                del self._taken[next(iter(self._taken))]
            self._running[run_id] = (run.lease_id, run.runtime)
        self.leases.hold(run_id, run.lease_id, asked_at, lease_s)
        metrics.slots_busy.labels(runtime=run.runtime).inc()
        self._threads.submit(self._slot, run_id, run, body, in_hand)

    def _slot(self, run_id: str, run: api.Run, body: bytes, in_hand: int) -> None:
        try:
            about = {"run_id": run_id, "handler": run.handler_name, "request_id": run.request_id}
            with (
                traces.span(
                    "run", run.traceparent, "consumer", attempt=run.attempt, runtime=run.runtime, **about
                ) as span,
                bound(**about, **({"trace_id": span.trace_id} if span.trace_id else {})),
            ):
                run.traceparent = span.traceparent  # what comes of it belongs to it
                self._attempt(run_id, run, body, in_hand, span)
        except LeaseGone as error:
            log.warning("given up: the lease is gone, the run is somebody else's now", run_id=run_id, reason=str(error))
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
            raise
        finally:
            self.leases.release(run_id, run.lease_id)
            metrics.slots_busy.labels(runtime=run.runtime).dec()
            with self._changed:
                self._running.pop(run_id, None)
                self._begun.discard(run_id)
                self._changed.notify_all()

    def _attempt(self, run_id: str, run: api.Run, body: bytes, in_hand: int, span: traces.Span) -> None:
        try:
            result = self._result(run_id, run, body, in_hand)
        except BtrdbAway as error:
            span.fail(str(error))
            self._btrdb(False, str(error))
            self._hand_back(run_id, run, api.BTRDB_AWAY, str(error))
            return
        except IndexAway as error:
            span.fail(str(error))
            self._hand_back(run_id, run, api.INDEX_AWAY, str(error))
            return
        except SandboxLost as error:
            span.fail(str(error))
            stopping = self._stopping
            self._hand_back(run_id, run, api.SHUTTING_DOWN if stopping else api.SANDBOX_LOST, str(error))
            return
        metrics.runs_total.labels(runtime=run.runtime, outcome=result.outcome.value).inc()
        span.note(outcome=result.outcome.value, cpu_s=result.cpu_s, peak_memory_bytes=result.peak_memory_bytes)
        if result.outcome is not Outcome.SUCCEEDED:
            span.fail(result.error.type if result.error else result.outcome.value)
        log.info("run ended", outcome=result.outcome.value, error=result.error and result.error.type)
        self._deliver(run_id, run, result)

    def _result(self, run_id: str, run: api.Run, body: bytes, in_hand: int) -> Result:
        def begun() -> None:
            with self._changed:
                self._begun.add(run_id)
            self._btrdb(True, "")
            log.info("begun", attempt=run.attempt)
            metrics.handler_start_seconds.observe((time.time_ns() - in_hand) / 1e9)

        runtime = self._runtimes.get(run.runtime)
        if runtime is None:
            return self._refused(
                run_id, run, f"this executor has no runtime {run.runtime}; it has {', '.join(self._runtimes)}"
            )
        try:
            blob = self._until_done(run_id, run, lambda: self._blobs.get(run.blob_digest))
        except NoSuchBlob:
            return self._refused(run_id, run, "the registry has lost the handler's code; register it again")
        point("run.before_start")
        job = self._job(run_id, run, blob, body)
        followed = self.follow.begin(run_id, run.lease_id)
        try:
            with self._lent(run) as packages:
                ended = runtime.run(
                    dataclasses.replace(job, packages=packages),
                    on_started=begun,
                    on_output=followed.add,
                )
        except RequirementsRefused as error:
            return self._refused(run_id, run, str(error))
        finally:
            self.follow.end(followed)
        point("run.after_end")
        if ended.begun_after_s is not None:
            traces.record("handler", run.traceparent, ended.started_at_ns, ended.ended_at_ns, run_id=run_id)
        metrics.run_seconds.labels(runtime=run.runtime).observe(max(ended.ended_at_ns - ended.started_at_ns, 0) / 1e9)
        wanted, most = run.memory_bytes, job.limits.memory_bytes
        less = _LESS_MEMORY % (wanted / MIB, most / MIB) if wanted > most else ""
        kept, note = self._keeper.keep(run_id, ended.uploads, lambda put: self._until_done(run_id, run, put, KEEP_S))
        return _result_of(run_id, run.lease_id, self._settings.name, ended, kept, less + note)

    @contextmanager
    def _lent(self, run: api.Run) -> Iterator[str]:
        """The name of the folder with the handler's requirements, '' when it has none."""
        if not run.requirements:
            yield ""
        elif self._packages is None:
            raise RequirementsRefused("this executor installs no requirements")
        else:
            with self._packages.lent(run.runtime, list(run.requirements)) as packages:
                yield packages

    def _job(self, run_id: str, run: api.Run, blob: bytes, body: bytes) -> Job:
        settings = self._settings
        limits = Limits(
            wall_s=run.wall_s or settings.wall_s,
            warning_s=settings.warning_s,
            memory_bytes=min(run.memory_bytes or settings.memory_bytes, settings.memory_bytes),
            scratch_bytes=settings.scratch_bytes,
            output_bytes=settings.output_bytes,
            processes=settings.processes,
            upload_bytes=settings.upload_bytes,
        )
        arguments: dict[str, Any] = json.loads(body)
        return Job(
            run_id=run_id,
            blob=blob,
            arguments=arguments,
            documented=documented_arguments(run.hook),
            api_key=run.api_key,
            traceparent=run.traceparent,
            limits=limits,
            handler=run.handler_name,
            source=run.source or None,
            first_line=run.first_line,
        )

    def _refused(self, run_id: str, run: api.Run, why: str) -> Result:
        return Result(
            run_id,
            run.lease_id,
            Outcome.REFUSED,
            self._settings.name,
            error=RunError("Refused", why),
            ended_at_ns=time.time_ns(),
        )

    def _deliver(self, run_id: str, run: api.Run, result: Result) -> None:
        """The result into Kafka, then the report; for as long as the lease is ours."""
        value = encode("result", to_plain(result))
        headers = [("content-type", AVRO_TYPE), ("ce_type", b"eventproc.result"), ("ce_id", run_id.encode())]
        headers += traces.as_header(run.traceparent)

        def produce() -> None:
            self._producer.send(RESULTS, value, key=run_id.encode(), headers=headers)
            self._producer.flush(self._settings.flush_timeout_s)

        self._until_done(run_id, run, produce)
        if not self._until_done(run_id, run, lambda: self._registry.report(run_id, run.lease_id)):
            log.warning("the lease was lost before the report; the result does not count")

    def _hand_back(self, run_id: str, run: api.Run, reason: api.HandBackReason.ValueType, text: str) -> None:
        begun = run_id in self._begun
        log.warning("handed back", reason=api.HandBackReason.Name(reason), text=text, begun=begun)
        self._until_done(run_id, run, lambda: self._registry.hand_back(run_id, run.lease_id, reason, text, begun))

    def _until_done(self, run_id: str, run: api.Run, work: Callable[[], T], patience_s: float = math.inf) -> T:
        """Does the work again and again while what it needs is away, as long as the lease is ours; then raises LeaseGone.

        After patience_s it raises the last TryLater.
        """
        wait, until = 0.1, time.monotonic() + patience_s
        while True:
            try:
                return work()
            except TryLater as error:
                if not self.leases.holds(run_id, run.lease_id):
                    raise LeaseGone(error.reason) from error
                if time.monotonic() > until:
                    raise
                with self._changed:
                    self._changed.wait(max(wait, error.after_s))
                wait = min(wait * 2, 5.0)

    def _kill(self, run_id: str, why: str) -> None:
        with self._changed:
            _, runtime = self._running.get(run_id, ("", ""))
        if runtime in self._runtimes:
            self._runtimes[runtime].kill(run_id, why)

    def stop(self, grace_s: float, turn: Callable[[], None] = lambda: None) -> int:
        """Claims no more, lets begun runs go on for grace_s, kills and hands back the rest. Returns how many were killed.

        turn: called every now and then while it waits; after the kill for KILLED_S at most, for then something is stuck.
        """
        with self._changed:
            self._stopping = True
        self._wait_for_runs(grace_s, turn)
        with self._changed:
            left = list(self._running)
        for run_id in left:
            self._kill(run_id, "its executor stopped")
        self._wait_for_runs(KILLED_S, turn)
        self._threads.shutdown(wait=True)
        return len(left)

    def _wait_for_runs(self, for_s: float, turn: Callable[[], None]) -> None:
        deadline = time.monotonic() + for_s
        with self._changed:
            while self._running and time.monotonic() < deadline:
                turn()
                self._changed.wait(min(TURN_S, max(0.0, deadline - time.monotonic())))


def _result_of(
    run_id: str, lease_id: str, executor: str, ended: Ended, uploads: tuple[Upload, ...], note: str
) -> Result:
    return Result(
        run_id=run_id,
        lease_id=lease_id,
        outcome=ended.outcome,
        executor=executor,
        text=ended.text,
        error=ended.error,
        log=ended.log + note,
        log_truncated=ended.log_truncated,
        uploads=uploads,
        started_at_ns=ended.started_at_ns,
        ended_at_ns=ended.ended_at_ns,
        cpu_s=ended.cpu_s,
        peak_memory_bytes=ended.peak_memory_bytes,
    )
