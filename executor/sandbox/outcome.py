"""From what was seen of a run to how it ended: the outcome with its true cause, texts checked, cut and masked."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executor.sandbox import protocol
from executor.sandbox.job import BtrdbAway, CollectedUpload, Ended, Job
from executor.sandbox.mask import Mask, mask_of
from executor.sandbox.supervise import Observed, Supervision, stopped_by_kernel
from executor.sandbox.zygote import Death
from schemas.records import KEY_REFUSED, Outcome, RunError

FROM_INSIDE = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.REFUSED})
MESSAGE, TRACEBACK, NAME = 16 * 1024, 80 * 1024, 200
CUT = {Outcome.TIMED_OUT: "TimeLimit", Outcome.OUT_OF_MEMORY: "MemoryLimit", Outcome.CRASHED: "Crashed"}
"""What a run is told to have met when it was killed, by outcome."""
CODE = re.compile(r"[0-9a-f]{32}")


def conclude(supervision: Supervision, death: Death, spool: Path | None) -> Ended:
    """How the run ended.

    spool: a directory for uploaded files, None to keep none. Raises BtrdbAway when the run never got to its handler.
    """
    seen, job = supervision.seen, supervision.job
    if seen.away is not None:
        raise BtrdbAway(seen.away)
    mask = mask_of(job.api_key)
    watch = supervision.child.watch
    assert watch is not None
    peak = watch.peak_with(death.max_rss)
    try:
        outcome, text, error = _verdict(seen, job, death)
    except protocol.Malformed as malformed:
        outcome, text, error = Outcome.CRASHED, "", _crash(f"it wrote to the executor's own channel: {malformed}")
    if watch.killed_by_kernel() and outcome in (Outcome.FAILED, Outcome.CRASHED):
        told = f" ({error.type}: {error.message})" if error is not None and outcome is Outcome.FAILED else ""
        outcome, text = Outcome.OUT_OF_MEMORY, ""
        error = RunError("MemoryLimit", f"{stopped_by_kernel()}{told}")
    if outcome is Outcome.OUT_OF_MEMORY and error is not None:
        error = RunError(error.type, f"{error.message} ({_figures(job, peak, error)})", error.traceback)
    # a child that was killed has handed over none; one that has, has ended, in whatever way
    kept = outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY)
    uploads = tuple(_uploads(supervision, mask, spool)) if kept else ()
    log, truncated = supervision.output.text(mask)  # last: what is left out is said there
    cut = len(text) >= job.limits.text_bytes
    text = mask.head(text) if cut else mask(text)
    return Ended(
        outcome=outcome,
        text=_within(text, job.limits.text_bytes),
        error=None
        if error is None
        else RunError(mask(error.type), mask.head(error.message), mask.head(error.traceback)),
        log=log,
        log_truncated=truncated,
        uploads=uploads,
        started_at_ns=seen.begun_ns or seen.handed_over_ns,
        ended_at_ns=seen.ended_ns,
        cpu_s=watch.cpu_with(death.cpu_s),
        peak_memory_bytes=peak,
        begun_after_s=None if seen.begun_at is None else seen.begun_at - seen.handed_over_at,
        at_limit=outcome in (Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY) or (seen.ended is None and seen.cut is not None),
    )


def _verdict(seen: Observed, job: Job, death: Death) -> tuple[Outcome, str, RunError | None]:
    if seen.key_refused is not None:
        return Outcome.REFUSED, "", RunError(KEY_REFUSED, f"BTrDB refuses the API key: {seen.key_refused}")
    if seen.ended is not None:
        return _told(seen.ended, seen, job)
    if seen.cut is not None:
        outcome, why = seen.cut
        return outcome, "", RunError(CUT[outcome], why)
    if seen.broken is not None:
        return Outcome.CRASHED, "", _crash(seen.broken)
    return Outcome.CRASHED, "", _crash(_cause(death, seen))


def _told(message: Mapping[str, Any], seen: Observed, job: Job) -> tuple[Outcome, str, RunError | None]:
    """The child's own word, as far as it may be believed."""
    try:
        outcome = Outcome(str(message.get("outcome")))
    except ValueError as unknown:
        raise protocol.Malformed("an unknown outcome") from unknown
    if outcome not in FROM_INSIDE or (outcome is Outcome.TIMED_OUT and not seen.warned):
        raise protocol.Malformed("an outcome that is not its own to tell")
    text = protocol.text_of(message, "text", job.limits.text_bytes)
    if outcome is Outcome.SUCCEEDED:
        return outcome, text, None
    told = message.get("error")
    if not isinstance(told, dict):
        raise protocol.Malformed("no error beside its outcome")
    error = RunError(
        protocol.text_of(told, "type", NAME),
        protocol.text_of(told, "message", MESSAGE),
        protocol.text_of(told, "traceback", TRACEBACK),
    )
    if outcome is Outcome.OUT_OF_MEMORY and not error.message:
        error = RunError(error.type, "no more memory", error.traceback)
    return outcome, "", error


def _figures(job: Job, peak: int, error: RunError) -> str:
    mib = 1 << 20
    limit, most = f"its limit is {job.limits.memory_bytes / mib:.0f} MiB", f"{peak / mib:.0f} MiB"
    if error.type == CUT[Outcome.OUT_OF_MEMORY]:
        return f"{limit}, its peak was {most}"
    # what was asked for at once was never had, so the peak may be far below the limit
    return f"{limit}; this allocation was refused, the peak until then was {most}"


def _crash(why: str) -> RunError:
    return RunError("Crashed", why)


def _cause(death: Death, seen: Observed) -> str:
    where = (
        "" if seen.begun_at is not None else " while its code was loaded" if seen.loading else " before it was loaded"
    )
    if os.WIFSIGNALED(death.status):
        name = signal.Signals(os.WTERMSIG(death.status)).name
        hint = ""
        if name == "SIGSYS":
            hint = " (it sent itself a deadly signal such as SIGKILL, SIGTERM, SIGSTOP or SIGABRT)"
        elif name == "SIGKILL":
            hint = " (not from this executor; the kernel kills so when the machine's memory runs out)"
        return f"it died by signal {name}{hint}{where}"
    return f"it ended its process with status {os.WEXITSTATUS(death.status)}, as by os._exit{where}"


def _within(text: str, limit: int) -> str:
    """At most limit bytes of UTF-8."""
    return text.encode()[:limit].decode("utf-8", "ignore")


def _uploads(supervision: Supervision, mask: Mask, spool: Path | None) -> list[CollectedUpload]:
    """The files whose descriptors came: regular ones of the run's own scratch, within the size limit, one per code."""
    found: dict[str, CollectedUpload] = {}
    scratch = supervision.child.scratch
    assert scratch is not None
    for message, descriptor in supervision.seen.uploads:
        facts = os.fstat(descriptor)
        code, name = str(message.get("code")), mask(protocol.clean(str(message.get("name"))))[:NAME]
        own = stat.S_ISREG(facts.st_mode) and scratch.owns(descriptor)
        if not own or not CODE.fullmatch(code) or code in found or facts.st_size > supervision.job.limits.upload_bytes:
            note = f"eventproc: upload {name!r} left out: not a new file of the handler's own within the size limit\n"
            supervision.output.add(note.encode())
            continue
        path = None
        if spool is not None:
            path = spool / f"{supervision.job.run_id}-{code}"
            try:
                _copy(descriptor, path, facts.st_size)
            except OSError as error:  # our own disk is full: no reason to lose the run
                path.unlink(missing_ok=True)
                supervision.output.add(f"eventproc: upload {name!r} left out: {error.strerror}\n".encode())
                continue
        found[code] = CollectedUpload(code, name, facts.st_size, path)
    return list(found.values())


def _copy(descriptor: int, path: Path, size: int) -> None:
    with path.open("wb") as file:
        offset = 0
        while offset < size and (sent := os.sendfile(file.fileno(), descriptor, offset, size - offset)):
            offset += sent
