"""An archive -> streams in BTrDB -> its event: the whole of what the ingress does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from ctingress import announce
from ctingress.decode_text import readable_names
from ctingress.describe import Described, Unreadable, event, processed
from ctingress.name import stream_names
from ctingress.open import Archive, DataSet, Limits, open_archive
from ctingress.recording import Samples
from ctingress.refuse import BadRecording
from ctingress.when import start_utc_ns
from ctingress.write import write
from stream.broker import Producer
from telemetry import traces

log = structlog.get_logger()

LAST_NS = (48 << 56) - 1
"""BTrDB's last instant."""
_LONGEST_ERROR = 200

Progress = Callable[[Described | Unreadable], None]


@dataclass(frozen=True)
class Options:
    """How to ingest an archive.

    tags: handlers with one of them run; prefix: put before collections; zone: IANA name or offset of recorders that do not
    tell theirs; request_id: the event's id (a UUID), a new one when None: giving the same again makes no second event run;
    submitted_at: RFC 3339, now when None; file_name: the archive's name in the event, that of its path when None.
    """

    tags: tuple[str, ...] = ()
    prefix: str = ""
    zone: str | None = None
    request_id: str | None = None
    submitted_at: str | None = None
    file_name: str | None = None


@dataclass(frozen=True)
class Ingested:
    """What became of an archive: the event's id, and its data sets in the archive's order."""

    request_id: str
    data_sets: tuple[Described | Unreadable, ...]


def ingest(
    path: Path,
    options: Options,
    connection: Any,
    producer: Producer,
    *,
    limits: Limits,
    largest_message: int,
    timeout_s: float = 60.0,
    progress: Progress = lambda data_set: None,
) -> Ingested:
    """Reads an archive, writes its recordings to BTrDB, and publishes one event when all can be read back.

    path: a zip with CFG+DAT pairs and CFF files; connection: btrdb's; progress: told of each data set once it is done.
    A data set that cannot be read is in the event with its error. Blocks. Raises BadArchive (nothing is written or
    published), InvalidMessage (the event would be too large; nothing is written), NotWritten (BTrDB; nothing is published),
    TryLater (Kafka). After any of them the same archive may be ingested again.
    """
    submitted_at = options.submitted_at or rfc3339(time.time_ns())
    request_id = str(uuid.UUID(options.request_id)) if options.request_id else str(uuid.uuid4())
    (name,) = readable_names([options.file_name or path.name])
    with traces.span("ingest", kind="producer", request_id=request_id) as span:
        with open_archive(path, limits) as archive:
            planned = [_plan(data_set, options) for data_set in archive.data_sets()]
            about = event(planned, name, request_id, submitted_at, options.tags)
            announce.check_size(about, largest_message)
            done = _write_all(archive, planned, options, connection, progress)
            about = event(done, name, request_id, submitted_at, options.tags)
        announce.announce(producer, about, timeout_s, span.traceparent)
    return Ingested(request_id, tuple(done))


def _plan(data_set: DataSet, options: Options) -> Described | Unreadable:
    found = _look(data_set, options)
    return found if isinstance(found, Unreadable) else found[0]


def _look(data_set: DataSet, options: Options) -> tuple[Described, Samples] | Unreadable:
    """A recording, or why it cannot be read: whatever happens to one, the others go on."""
    try:
        return _read(data_set, options)
    except BadRecording as error:
        return Unreadable(data_set.name, str(error))
    except Exception as error:  # noqa: BLE001 # a defect of the reader, or more memory wanted than there is
        return _unforeseen(data_set, error)


def _unforeseen(data_set: DataSet, error: Exception) -> Unreadable:
    log.error("a recording that the ingress does not cope with", data_set=data_set.name, exc_info=error)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Unreadable(data_set.name, f"the ingress does not cope with it ({said[:_LONGEST_ERROR]})")


def _write_all(
    archive: Archive,
    planned: Sequence[Described | Unreadable],
    options: Options,
    connection: Any,
    progress: Progress,
) -> list[Described | Unreadable]:
    """Reads each recording again, so that the samples of one only are in memory."""
    done: list[Described | Unreadable] = []
    for data_set, plan in zip(archive.data_sets(), planned, strict=True):
        if isinstance(plan, Described):
            plan = _write_one(data_set, options, connection)
        done.append(plan)
        progress(plan)
    return done


def _write_one(data_set: DataSet, options: Options, connection: Any) -> Described | Unreadable:
    found = _look(data_set, options)
    if isinstance(found, Unreadable):
        return found
    try:
        return processed(found[0], write(connection, *found))
    except MemoryError as error:
        return _unforeseen(data_set, error)


def _read(data_set: DataSet, options: Options) -> tuple[Described, Samples]:
    config, samples, hdr, inf = data_set.read()
    start_ns, source, offset = start_utc_ns(config, data_set.name, options.zone)
    first_ns, last_ns = (start_ns + int(edge) for edge in (samples.offsets_ns.min(), samples.offsets_ns.max()))
    if last_ns > LAST_NS:
        raise BadRecording(
            f"its last sample stands at {last_ns} ns; BTrDB has room until {LAST_NS} ns, in the year 2079"
        )
    trigger_ns = config.trigger_local_ns
    described = Described(
        name=data_set.name,
        config=config,
        streams=stream_names(config, options.prefix),
        start_ns=first_ns,
        end_ns=last_ns,
        trigger_ns=None if trigger_ns is None else start_ns + trigger_ns - config.start_local_ns,
        source=source,
        offset=offset,
        missing=samples.missing,
        hdr=hdr,
        inf=inf,
    )
    return described, samples


def tags_of(text: str) -> tuple[str, ...]:
    """Comma-separated tags as Options has them: sorted, each once, without blanks around."""
    return tuple(sorted({tag.strip() for tag in text.split(",") if tag.strip()}))


def rfc3339(ns: int) -> str:
    """ns since the epoch as RFC 3339 in UTC with nine decimals."""
    whole, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
