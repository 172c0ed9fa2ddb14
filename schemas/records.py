"""Record classes of the messages between stations; each has its Avro contract in records/<name>.avsc."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Outcome(enum.StrEnum):
    """How a run ended; terminal and write-once."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the handler raised
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"  # died by a signal or by os._exit
    REFUSED = "refused"  # could not be loaded: wrong Python, missing module, key refused
    ABANDONED = "abandoned"  # its executor died too often
    CANCELLED = "cancelled"  # its handler was removed before it started; no email


KEY_REFUSED = "KeyRefused"
"""The error's type of a run that was refused because BTrDB refuses its owner's API key."""

EXECUTOR_OUTCOMES = frozenset(
    {
        Outcome.SUCCEEDED,
        Outcome.FAILED,
        Outcome.TIMED_OUT,
        Outcome.OUT_OF_MEMORY,
        Outcome.CRASHED,
        Outcome.REFUSED,
    }
)
"""Outcomes that an executor may report; the others are the ledger's own."""


@dataclass(frozen=True)
class Task:
    """An invitation to claim a run; dispatched_at_ns in ns since the epoch."""

    run_id: str
    owner: str
    runtime: str
    hook: str
    dispatched_at_ns: int


@dataclass(frozen=True)
class RunError:
    """An exception's type (qualified name), message and traceback, as texts."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Upload:
    """A file that a handler gave to upload_file: code (32 hex digits), given name, size in bytes."""

    code: str
    name: str
    size: int


def stored_name(run_id: str, code: str) -> str:
    """An upload's name in the object store: with the run's id no handler can write over another run's file by its code."""
    return f"{run_id}.{code}"


@dataclass(frozen=True)
class Result:
    """How one attempt ended; it counts only with the run's present lease. Times in ns since the epoch, memory in bytes."""

    run_id: str
    lease_id: str
    outcome: Outcome
    executor: str = ""
    text: str = ""
    error: RunError | None = None
    log: str = ""
    log_truncated: bool = False
    uploads: tuple[Upload, ...] = ()
    started_at_ns: int = 0
    ended_at_ns: int = 0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be read, with its origin and the reason."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    group: str
    reason: str
    at_ns: int


def to_plain(record: Task | Result | DeadLetter) -> dict[str, Any]:
    """The record as the plain mapping that its Avro contract describes."""
    if isinstance(
        record, Task
    ):  # by far the most of them; asdict() copies deeply and takes longer than all the encoding
        return dict(vars(record))
    plain = dataclasses.asdict(record)
    if isinstance(record, DeadLetter):
        plain["headers"] = [{"name": n, "value": v} for n, v in record.headers]
    return plain


def task_from(plain: Mapping[str, Any]) -> Task:
    """A Task from a mapping that fits task.avsc. Raises ValueError naming the field that is wrong."""
    return Task(**{**{f.name: plain[f.name] for f in dataclasses.fields(Task)}, "run_id": _run_id(plain)})


def result_from(plain: Mapping[str, Any]) -> Result:
    """A Result from a mapping that fits result.avsc.

    Raises ValueError naming the field that is wrong, an outcome that an executor may not report among them.
    """
    outcome = Outcome(plain["outcome"])
    if outcome not in EXECUTOR_OUTCOMES:
        raise ValueError(f"outcome {outcome.value!r} is not for an executor to report")
    values = {f.name: plain[f.name] for f in dataclasses.fields(Result)}
    values["run_id"], values["outcome"] = _run_id(plain), outcome
    if not math.isfinite(values["cpu_s"]):
        raise ValueError(f"cpu_s: should be a number of seconds, is {values['cpu_s']!r}")
    values["error"] = RunError(**plain["error"]) if plain["error"] else None
    values["uploads"] = tuple(Upload(**upload) for upload in plain["uploads"])
    return Result(**values)


def _run_id(plain: Mapping[str, Any]) -> str:
    """The run's id; as schemas.events.run_id writes it."""
    given = str(plain["run_id"])
    if not _UUID.fullmatch(given):
        raise ValueError(f"run_id: should be a UUID as text, is {given[:60]!r}")
    return given


def dead_letter_from(plain: Mapping[str, Any]) -> DeadLetter:
    """A DeadLetter from a mapping that fits dead_letter.avsc."""
    values = {f.name: plain[f.name] for f in dataclasses.fields(DeadLetter)}
    values["headers"] = tuple((h["name"], h["value"]) for h in plain["headers"])
    return DeadLetter(**values)
