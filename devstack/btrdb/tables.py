"""Points and windows as Arrow tables, the form that current clients ask for."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from devstack.btrdb import refusals
from devstack.btrdb.points import Points, WindowStats
from devstack.btrdb.refusals import Refusal

_TIME = pa.field("time", pa.timestamp("ns", tz="UTC"), nullable=False)
_VALUES = pa.schema([_TIME, pa.field("value", pa.float64(), nullable=False)])
_WINDOWS = pa.schema(
    [
        _TIME,
        *(pa.field(name, pa.float64(), nullable=False) for name in ("min", "mean", "max")),
        pa.field("count", pa.uint64(), nullable=False),
        pa.field("stddev", pa.float64(), nullable=False),
    ]
)


def read_points(table: bytes) -> Points:
    """The points of an Arrow stream with a time and a value column; raises Refusal 421 when it is none."""
    try:
        with pa.ipc.open_stream(table) as reader:
            read = reader.read_all()
        times = read.column(0).cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
        values = read.column(1).cast(pa.float64())
    except (pa.ArrowException, IndexError, KeyError) as error:
        raise Refusal(
            refusals.WRONG_ARGS, f"arrowBytes should be an Arrow stream with columns time and value: {error}"
        ) from error
    if times.null_count or values.null_count:
        raise Refusal(refusals.BAD_VALUE, "insert with a null; times and values should be numbers")
    return Points(times.to_numpy().astype(np.int64), values.to_numpy().astype(np.float64))


def points_table(points: Points, template: bytes) -> bytes:
    """Time and value as an Arrow stream, in the template's schema when there is one; raises Refusal 421."""
    return _stream([pa.array(points.times), pa.array(points.values)], _VALUES, template)


def windows_table(windows: WindowStats) -> bytes:
    """WindowStats as an Arrow stream."""
    columns = [windows.times, windows.minimum, windows.mean, windows.maximum, windows.count, windows.stddev]
    return _stream([pa.array(column) for column in columns], _WINDOWS, b"")


def joined_table(streams: Sequence[tuple[uuid.UUID, Points]], template: bytes) -> bytes:
    """Several streams side by side: one row per time that any of them has, NaN where one has none."""
    times = np.unique(np.concatenate([points.times for _, points in streams]))
    fields, columns = [_TIME], [pa.array(times)]
    for name, points in streams:
        column = np.full(len(times), np.nan)
        column[np.searchsorted(times, points.times)] = points.values
        fields.append(pa.field(str(name), pa.float64(), nullable=False))
        columns.append(pa.array(column))
    return _stream(columns, pa.schema(fields), template)


def _stream(columns: list[pa.Array], schema: pa.Schema, template: bytes) -> bytes:
    arrays = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    if template:
        table = _cast(table, template)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def _cast(table: pa.Table, template: bytes) -> pa.Table:
    try:
        with pa.ipc.open_stream(template) as reader:
            wanted = reader.schema
        if len(wanted) != len(table.schema):
            raise Refusal(refusals.WRONG_ARGS, f"schema has {len(wanted)} columns; the data has {len(table.schema)}")
        return table.rename_columns(wanted.names).cast(wanted, safe=False)
    except (pa.ArrowException, ValueError) as error:
        raise Refusal(refusals.WRONG_ARGS, f"the data cannot be had in the schema asked for: {error}") from error
