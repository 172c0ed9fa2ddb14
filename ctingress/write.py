"""A recording -> streams and points in BTrDB, read back before anybody is told of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from btrdb.exceptions import AmbiguousStream, BTrDBError, RecycledUUID, StreamExists

from ctingress.describe import Described, notes
from ctingress.name import LONGEST, StreamName, shortened
from ctingress.recording import Channel, Samples
from schemas.errors import TryLater

MERGE = "equal"
"""A point equal in time and value is the same point: ingesting twice adds none, and nothing is ever overwritten."""
READ_BACK_S = 60.0
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}

_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


class NotWritten(Exception):
    """BTrDB did not take the data, or does not give it back; nothing is published then. Ingesting again is harmless."""

    @property
    def for_good(self) -> bool:
        """Whether trying again is of no use: a stream of the same name under another UUID, or one that was obliterated."""
        return isinstance(self.__cause__, AmbiguousStream | RecycledUUID)


def key_refused(error: BaseException) -> str:
    """What BTrDB said where it refuses the key; error: btrdb's or gRPC's. Raises TryLater where anything else was the matter."""
    # btrdb's connect() wraps what gRPC was told
    said: Any = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, grpc.Call)), None)
    if said is not None and said.code() in REFUSED:
        return str(said.details())
    raise TryLater(f"BTrDB: {said.details() if said is not None else error}") from error


def write(connection: Any, described: Described, samples: Samples) -> list[int]:
    """Writes every channel of a recording and reads it back; gives the ns (UTC) at which each stream's processing began.

    connection: btrdb's, under a key that may write. Blocks until all points can be read; raises NotWritten naming the stream.
    """
    # start_ns is the earliest sample's instant; by its time stamp that may be later than the recording's start
    times = described.start_ns + (samples.offsets_ns - samples.offsets_ns.min())
    known = _known(connection, described.streams)
    began, written = [], []
    for row, (named, channel) in enumerate(zip(described.streams, described.config.channels, strict=True)):
        began.append(time.time_ns())
        try:
            stream = _stream(connection, described, named, channel, known.get(named.uuid))
            there = ~np.isnan(samples.values[row])
            _insert(connection, stream, times[there], samples.values[row][there])
        except BTrDBError as error:
            raise NotWritten(f"{described.name}: stream {named.collection}/{named.name}: {_said(error)}") from error
        written.append((stream, named, times[there]))
    for stream, named, inserted in written:
        _read_back(stream, f"{described.name}: stream {named.collection}/{named.name}", inserted)
    return began


def _known(connection: Any, streams: Sequence[StreamName]) -> dict[UUID, Any]:
    if not streams:
        return {}
    try:
        found = connection.streams_in_collection(streams[0].collection)
    except BTrDBError as error:
        raise NotWritten(f"collection {streams[0].collection}: {_said(error)}") from error
    return {stream.uuid: stream for stream in found}


def _stream(connection: Any, described: Described, named: StreamName, channel: Channel, known: Any) -> Any:
    unit = shortened(channel.unit, LONGEST)  # BTrDB takes no longer tag; the annotation has the whole
    tags = {"name": named.name, "unit": unit, "ingress": "comtrade", "distiller": ""}
    wanted = notes(described, channel)
    if known is None:
        try:
            return connection.create(named.uuid, named.collection, tags=tags, annotations=wanted)
        except StreamExists:
            known = connection.stream_from_uuid(named.uuid)
        except AmbiguousStream as error:
            raise NotWritten(f"{named.collection}/{named.name} exists under another UUID than {named.uuid}") from error
        except RecycledUUID as error:
            raise NotWritten(
                f"{named.collection}/{named.name} was obliterated; BTrDB never takes its UUID again"
            ) from error
    held = {key: str(value) for key, value in known.annotations()[0].items()}
    if held != wanted:
        known.update(annotations=wanted, encoder=None, replace=True)
    if known.tags() != tags:
        known.update(tags=tags)
    return known


def _insert(connection: Any, stream: Any, times: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
    if not len(times):
        return
    if connection._ARROW_ENABLED:
        columns = [pa.array(times).cast(_SCHEMA.field(0).type), pa.array(values)]
        stream.arrow_insert(pa.Table.from_arrays(columns, schema=_SCHEMA), merge=MERGE)
    else:
        stream.insert(list(zip(times.tolist(), values.tolist(), strict=True)), merge=MERGE)
    stream.flush()


def _read_back(stream: Any, where: str, times: npt.NDArray[np.int64]) -> None:
    """Asks how many points are there now, until all are."""
    if not len(times):
        return
    first, last, wanted = int(times.min()), int(times.max()), len(np.unique(times))
    deadline = time.monotonic() + READ_BACK_S
    found = 0
    while time.monotonic() < deadline:
        try:
            found = stream.count(first, last + 1, precise=True)
        except BTrDBError as error:
            raise NotWritten(f"{where}: {_said(error)}") from error
        if found >= wanted:
            return
        time.sleep(0.2)
    raise NotWritten(f"{where}: of {wanted} points only {found} can be read back after {READ_BACK_S:.0f} s")


def _said(error: Exception) -> str:
    return str(error) or error.__class__.__name__
