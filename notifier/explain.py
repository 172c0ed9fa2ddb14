"""A closed run -> what its email says, in plain words; no layout in here."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ledger.runs import RunView
from notifier.attach import NO_FILES, File, Files
from schemas.records import Outcome

MOST_TEXT = 100_000  # characters of the returned text
MOST_TRACEBACK = 20_000
MOST_LOG = 8_000
MOST_LOG_LINES = 100
MOST_ATTEMPTS = 24  # the first, twenty retries (the most that may be asked for) and some that were lost
MOST_NAME = 1000  # characters of an archive's or a data set's name, or whatever else should be one line
MOST_DATA_SETS = 25  # of those that were read, and of those that were not

VERBS = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.TIMED_OUT: "timed out",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.CRASHED: "crashed",
    Outcome.REFUSED: "was refused",
    Outcome.ABANDONED: "was abandoned",
    Outcome.CANCELLED: "was cancelled",
}

NEXT = {
    Outcome.SUCCEEDED: "Registering a function under the same name replaces this handler; deregister(conn, {id}) removes it.",
    Outcome.FAILED: "Correct the function and register it again under the same name; it runs on the next archive.",
    Outcome.TIMED_OUT: "Read less at a time, let BTrDB aggregate (aligned_windows), or use timeout=, then register it again.",
    Outcome.OUT_OF_MEMORY: "Read streams one by one, let BTrDB aggregate (aligned_windows), or use memory=, then register it again.",
    Outcome.CRASHED: "Native code or os._exit usually ends a process like this; the last lines of the log show how far it came.",
    Outcome.REFUSED: "Put right what the message names, and register it again under the same name.",
    Outcome.ABANDONED: "If it needs much memory or kills its processes, correct that; else give the run's id to your operators.",
    Outcome.CANCELLED: "Nothing needs to be done.",
}

_MODULE = re.compile(r"(?:No module named|needs the module) '([^']{1,200})'")
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48 section 5.4, control sequences: colours of a terminal
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class DataSet:
    """A data set of the archive. about: station, rates, trigger; error: '' when it was read."""

    name: str
    about: str
    error: str


@dataclass(frozen=True)
class Explained:
    """What an email says of one run. Texts are clean of control signs; those that may be absent are '' then.

    attempts: one line each, the last MOST_ATTEMPTS; empty when the first was the only one.
    """

    run_id: str
    handler: str
    verb: str
    good: bool
    archive: str
    headline: str
    text: str
    error_type: str
    error_message: str
    traceback: str
    log: str
    log_shortened: bool
    read: tuple[DataSet, ...]
    unread: tuple[DataSet, ...]
    more_read: int
    more_unread: int
    notes: tuple[str, ...]
    attempts: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    files: tuple[File, ...]
    next_step: str


def explain(run: RunView, files: Files = NO_FILES) -> Explained:
    """Everything worth saying of a run that has ended; lists and texts are bounded. Raises ValueError for one that has not.

    files: how its files are linked and shown.
    """
    outcome = Outcome(run.state)
    event = _event(run.event_body)
    read, unread = _data_sets(event)
    log, shortened = _tail(clean(run.log))
    error = run.error
    return Explained(
        run_id=run.run_id,
        handler=clean(run.handler_name),
        verb=VERBS[outcome],
        good=outcome is Outcome.SUCCEEDED,
        archive=_line(run.event_subject),
        headline=_headline(run, outcome),
        text=_shortened(clean(run.text).strip("\n"), MOST_TEXT),
        error_type=clean(error.type) if error and (outcome is Outcome.FAILED or error.type.endswith("Error")) else "",
        error_message=_shortened(clean(error.message), MOST_TRACEBACK) if error else "",
        traceback=_end(clean(error.traceback).rstrip(), MOST_TRACEBACK) if error else "",
        log=log,
        log_shortened=shortened or run.log_truncated,
        read=tuple(read[:MOST_DATA_SETS]),
        unread=tuple(unread[:MOST_DATA_SETS]),
        more_read=max(len(read) - MOST_DATA_SETS, 0),
        more_unread=max(len(unread) - MOST_DATA_SETS, 0),
        notes=(*_starts(run), *_cautions(event)),
        attempts=_attempts(run),
        facts=_facts(run),
        files=tuple(dataclasses.replace(file, name=_line(file.name)) for file in files.of(run.run_id, run.uploads)),
        next_step=_next_step(run, outcome),
    )


def clean(text: str) -> str:
    """The text without terminal colours and control signs; lines end with a line feed."""
    return _CONTROL.sub("", _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def moment(ns: int, digits: int = 9) -> str:
    """Nanoseconds since the epoch as '2020-06-11 02:59:10.350000000 UTC', cut to that many digits after the point."""
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{f'{rest:09d}'[:digits]} UTC"


def duration(seconds: float) -> str:
    """'35 ms', '1.24 s', '15 min 0 s', '2 h 5 min'."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """'812 B', '143 MiB'."""
    if count < 1024:
        return f"{count} B"
    power = 1
    while power < 4 and count >= 1023.5 * 1024**power:
        power += 1
    return f"{float(f'{count / 1024**power:.3g}'):g} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def _headline(run: RunView, outcome: Outcome) -> str:
    on = f"on {_line(run.event_subject)}" if run.event_subject else f"on event {run.request_id}"
    ran = duration((run.ended_at_ns - run.started_at_ns) / 1e9) if run.started_at_ns and run.ended_at_ns else ""
    if outcome is Outcome.SUCCEEDED:
        return f"It ran {on}" + (f" and took {ran}." if ran else ".")
    said: Mapping[Outcome, Callable[[], str]] = {
        Outcome.FAILED: lambda: f"It raised an exception {on}" + (f", {ran} after its first line." if ran else "."),
        Outcome.TIMED_OUT: lambda: (
            f"It reached its time limit {on} and was stopped" + (f" after {ran}." if ran else ".")
        ),
        Outcome.OUT_OF_MEMORY: lambda: _out_of_memory(run, on),
        Outcome.CRASHED: lambda: (
            f"Its process died {on} without an answer" + (f", {ran} after its first line." if ran else ".")
        ),
        Outcome.REFUSED: lambda: f"It could not be started {on}; not a line of it ran.",
        Outcome.ABANDONED: lambda: f"It was given up {on}: its attempts are used up.",
        Outcome.CANCELLED: lambda: f"It was removed before it started {on}.",
    }
    return said[outcome]()


def _out_of_memory(run: RunView, on: str) -> str:
    if run.error and run.error.type.endswith(
        "MemoryError"
    ):  # the handler's own, or numpy's: what it asked for was never had
        return f"It asked for more memory {on} than its limit leaves, and did not get it."
    seen = f"; the most that was seen is {size(run.peak_memory_bytes)}" if run.peak_memory_bytes else ""
    return f"It needed more memory than its limit {on} and was stopped{seen}."


def _next_step(run: RunView, outcome: Outcome) -> str:
    error = run.error
    if error and error.type == "ModuleNotFoundError" and (named := _MODULE.search(error.message)):
        return (
            f"If {clean(named[1])} is a package or part of one, register it again under the same name with that package in "
            "requirements=[...]; if it is a file of your own, import it above the function, so that it is sent along."
        )
    return NEXT[outcome].format(id=run.handler_id)


def _starts(run: RunView) -> list[str]:
    # of an attempt that was lost with its executor nobody knows how far it came
    starts = sum(attempt.begun or not attempt.reason.startswith("handed back") for attempt in run.attempts)
    if starts < 2:
        return []
    times = "twice" if starts == 2 else f"{starts} times"
    return [f"This run was started {times}, so what the handler does may have been done more than once."]


def _attempts(run: RunView) -> tuple[str, ...]:
    if len(run.attempts) < 2:
        return ()
    told = [
        _line(
            f"{number}. {moment(attempt.claimed_at_ms * 10**6, 0).replace('. ', ' ')}, {attempt.executor[:100] or 'unknown'}: "
            f"{attempt.reason[:200] or 'not ended'}"
        )
        for number, attempt in enumerate(run.attempts, 1)
    ]
    return (*(["..."] if len(told) > MOST_ATTEMPTS else []), *told[-MOST_ATTEMPTS:])


def _facts(run: RunView) -> tuple[tuple[str, str], ...]:
    waited = run.started_at_ns / 1e9 - run.queued_at_ms / 1e3
    facts = [
        (
            "Handler",
            f"{run.handler_name} (id {run.handler_id}, version {run.handler_version}), registered by {run.owner}",
        ),
        ("Archive", run.event_subject),
        (
            "Started",
            moment(run.started_at_ns, 3) + (f", {duration(waited)} after it was queued" if waited > 0 else "")
            if run.started_at_ns
            else "",
        ),
        ("Ended", moment(run.ended_at_ns, 3) if run.ended_at_ns else ""),
        ("Used", _used(run)),
        ("Where", ", ".join(filter(None, [run.attempts[-1].executor if run.attempts else "", run.runtime]))),
        ("Hook", run.hook),
        ("Request", run.request_id),
        ("Run", run.run_id),
    ]
    return tuple((label, _line(value)) for label, value in facts if value)


def _used(run: RunView) -> str:
    parts = []
    if run.started_at_ns and run.ended_at_ns:
        parts.append(f"{duration((run.ended_at_ns - run.started_at_ns) / 1e9)}")
    if run.cpu_s:
        parts.append(f"{duration(run.cpu_s)} of processor time")
    if run.peak_memory_bytes:
        parts.append(f"{size(run.peak_memory_bytes)} of memory at most")
    return ", ".join(parts)


def _event(body: bytes) -> Mapping[str, Any]:
    event = json.loads(body) if body else {}
    return event if isinstance(event, dict) else {}


def _records(event: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """The field's records; a hook that has no such field has none."""
    found = event.get(field)
    return [record for record in found if isinstance(record, dict)] if isinstance(found, list) else []


def _data_sets(event: Mapping[str, Any]) -> tuple[list[DataSet], list[DataSet]]:
    recordings = {recording.get("Name"): recording for recording in _records(event, "Recordings")}
    read, unread = [], []
    for given in _records(event, "DataSets"):
        name = _line(given.get("Name", ""))
        if given.get("Success"):
            read.append(DataSet(name, _about(recordings.get(given.get("Name"), {}), given.get("Streams") or ()), ""))
        else:
            unread.append(DataSet(name, "", _line(given.get("Error", "")) or "no reason was given"))
    return read, unread


def _about(recording: Mapping[str, Any], streams: Sequence[Any]) -> str:
    rates = [f"{rate['RateHz']:g} Hz" for rate in recording.get("SampleRates") or () if rate.get("RateHz")]
    place = " / ".join(filter(None, [_line(recording.get("Station", "")), _line(recording.get("Device", ""))]))
    trigger = recording.get("TriggerNs")
    parts = [
        place,
        f"sampled at {' and '.join(rates)}" if rates else "",
        f"{len(streams)} stream{'' if len(streams) == 1 else 's'}",
        f"triggered {moment(trigger)}" if trigger is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _cautions(event: Mapping[str, Any]) -> list[str]:
    """What of the recordings' times and values a reader must know before trusting the figures."""
    recordings = _records(event, "Recordings")
    assumed = [_line(r.get("Name", "")) for r in recordings if r.get("UtcOffsetSource") == "assumed"]
    unlocked = [_line(r.get("Name", "")) for r in recordings if r.get("TimeQuality") in ("F", "f")]
    missing = [(_line(r.get("Name", "")), r["MissingSamples"]) for r in recordings if r.get("MissingSamples")]
    notes = []
    if assumed:
        notes.append(
            f"UTC was assumed for {_names(assumed)}: nothing says which offset the recorder's clock had, so its times may be hours off."
        )
    if unlocked:  # IEEE C37.111-2013, 7.4.11: F is a clock failure
        notes.append(f"The recorder's clock had failed for {_names(unlocked)}: its times are not reliable.")
    if missing:
        total = sum(count for _, count in missing)
        notes.append(
            f"{total:,} sample{' is' if total == 1 else 's are'} missing in {_names([name for name, _ in missing])}."
        )
    return notes


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _line(value: object) -> str:
    line = " ".join(clean(str(value)[: 10 * MOST_NAME]).split())
    return line if len(line) <= MOST_NAME else f"{line[: MOST_NAME - 20]}...{line[-17:]}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[... {len(text) - most:,} more characters]"


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"[... {len(text) - most:,} characters before]\n{text[-most:]}"


def _tail(log: str) -> tuple[str, bool]:
    """The log's last lines and whether some stand before them."""
    lines = log.rstrip().splitlines()
    kept = "\n".join(lines[-MOST_LOG_LINES:])[-MOST_LOG:]
    return kept, len(kept) < len("\n".join(lines))
