"""The edges of times, ranges, windows and versions, as the public server has them (BTrDB/btrdb-server, quasar.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from btrdb.exceptions import BTRDBServerError, InvalidPointWidth, InvalidTimeRange, VersionNotAvailable
from btrdb.grpcinterface import btrdb_pb2 as pb

EARLIEST, END = -(16 << 56), (48 << 56) - 1
"""The first time that there is; the latest end of a range, which is left out of it."""

RANGES: dict[str, Callable[[Any, int, int], Any]] = {
    "values": lambda s, start, end: s.values(start, end),
    "arrow_values": lambda s, start, end: s.arrow_values(start, end).num_rows,
    "windows": lambda s, start, end: s.windows(start, end, 1 << 40),
    "arrow_windows": lambda s, start, end: s.arrow_windows(start, end, 1 << 40).num_rows,
    "aligned_windows": lambda s, start, end: s.aligned_windows(start, end, 40),
    "arrow_aligned_windows": lambda s, start, end: s.arrow_aligned_windows(start, end, 40).num_rows,
    "multi": lambda s, start, end: list(s.btrdb.ep.arrowMultiValues([s.uuid], start, end, [0], 0)),
    "delete": lambda s, start, end: s.delete(start, end),
}


@pytest.mark.parametrize("call", RANGES)
def test_a_range_is_in_order_and_within_time(stream: Any, call: str) -> None:
    stream.insert([(EARLIEST, 1.0), (END - 1, 2.0)])

    for start, end in ((5, 5), (6, 5), (EARLIEST - 1, 5), (5, END + 1), (5, (1 << 63) - 1), (-(1 << 63), 5)):
        with pytest.raises(InvalidTimeRange):
            RANGES[call](stream, start, end)
    RANGES[call](stream, EARLIEST, END)


def test_the_first_and_the_last_time_are_written_read_and_deleted(stream: Any) -> None:
    for beyond in (EARLIEST - 1, END, END + 1):
        with pytest.raises(InvalidTimeRange):
            stream.insert([(beyond, 1.0)])
    stream.insert([(EARLIEST, 1.0), (END - 1, 2.0)])

    assert [(p.time, p.value) for p, _ in stream.values(EARLIEST, END)] == [(EARLIEST, 1.0), (END - 1, 2.0)]
    assert (stream.earliest()[0].time, stream.latest()[0].time) == (EARLIEST, END - 1)
    assert stream.count(precise=True) == 2
    stream.delete(EARLIEST, END)
    assert stream.values(EARLIEST, END) == []


@pytest.mark.parametrize("backward", [False, True])
def test_nearest_is_asked_within_time(stream: Any, backward: bool) -> None:
    stream.insert([(0, 1.0)])

    for time in (EARLIEST - 1, END + 1, 1 << 62, -(1 << 62)):
        with pytest.raises(InvalidTimeRange):
            stream.nearest(time, version=0, backward=backward)
    assert stream.nearest(EARLIEST, version=0, backward=backward) == (None if backward else stream.earliest())
    assert stream.nearest(END, version=0, backward=backward) == (stream.latest() if backward else None)


def test_windows_of_any_width_that_there_is_are_answered(stream: Any) -> None:
    stream.insert([(0, 1.0), (5, 3.0)])

    for pointwidth in range(64):
        found = stream.aligned_windows(0, END, pointwidth)
        assert sum(p.count for p, _ in found) in (0, 2)
    assert [p.count for p, _ in stream.windows(EARLIEST, END, (1 << 62) - 1)] == [2]
    assert stream.windows(EARLIEST, END, (1 << 63) - 1) == ()
    with pytest.raises(InvalidTimeRange):
        stream.aligned_windows(-5, 5, 61)  # its first window would begin before time does
    with pytest.raises(InvalidPointWidth):
        stream.aligned_windows(0, 5, 64)
    with pytest.raises(InvalidPointWidth):
        stream.windows(0, 5, 1, depth=64)
    for width in (0, 1 << 63, (1 << 64) - 1):
        with pytest.raises(InvalidPointWidth):
            stream.windows(0, 5, width)


def test_changes_are_told_at_every_resolution_up_to_the_present_version(stream: Any) -> None:
    first = stream.insert([(EARLIEST, 1.0)])
    last = stream.insert([(-7, 1.0), (END - 1, 2.0)])

    def changes(start: int, end: int, resolution: int) -> list[tuple[int, int]]:
        parts = stream.btrdb.ep.changes(stream.uuid, start, end, resolution)
        return [(one.start, one.end) for part, _ in parts for one in part]

    for resolution in range(64):
        (found,) = changes(first, last, resolution)
        assert EARLIEST <= found[0] <= -7 and END <= found[1] <= END + 1
    assert changes(first, last, 63) == [(EARLIEST, END + 1)]
    assert changes(0, 0, 0) == [(EARLIEST, EARLIEST + 1), (-7, END)]
    for beyond in (last + 1, 1 << 63, (1 << 64) - 1):
        with pytest.raises(VersionNotAvailable):
            changes(first, beyond, 0)
        with pytest.raises(VersionNotAvailable):
            stream.values(0, 5, version=beyond)
    with pytest.raises(BTRDBServerError, match="427"):
        changes(last, first, 0)
    with pytest.raises(InvalidPointWidth):
        changes(first, last, 64)


def test_no_request_of_the_wire_ends_in_an_error_without_a_code(stream: Any) -> None:
    """At the ends of the types of its fields, whatever is asked is answered with data or with one of BTrDB's codes."""
    stub, raw = stream.btrdb.ep.stub, stream.uuid.bytes
    signed, unsigned = (-(1 << 63), (1 << 63) - 1), (0, (1 << 64) - 1)
    times = [(start, end) for start in (*signed, EARLIEST, 0) for end in (*signed, END, 0)]
    for start, end in times:
        for version in unsigned:
            asked = [
                stub.RawValues(pb.RawValuesParams(uuid=raw, start=start, end=end, versionMajor=version)),
                stub.Changes(pb.ChangesParams(uuid=raw, fromMajor=version, toMajor=version, resolution=63)),
            ]
            for width in (0, 63, (1 << 32) - 1):
                window = {"uuid": raw, "start": start, "end": end, "versionMajor": version}
                asked.append(stub.AlignedWindows(pb.AlignedWindowsParams(**window, pointWidth=width)))
                asked += [stub.Windows(pb.WindowsParams(**window, width=w, depth=width)) for w in unsigned]
            for answers in asked:
                for answer in answers:
                    assert answer.stat.code in (0, 404, 413, 415, 427, 450)
