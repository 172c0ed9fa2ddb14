"""The development server as the public client sees it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import btrdb
import numpy as np
import pyarrow as pa
import pytest
from btrdb.exceptions import (
    AmbiguousStream,
    BadValue,
    BTrDBError,
    InvalidCollection,
    InvalidTagKey,
    InvalidTimeRange,
    NoSuchPoint,
    RecycledUUID,
    StreamExists,
    StreamNotFoundError,
    VersionNotAvailable,
)
from btrdb.point import RawPoint

START = 1_591_844_350_000_000_000
MS = 1_000_000


def points(count: int, step: int = MS) -> list[tuple[int, float]]:
    return [(START + k * step, float(k)) for k in range(count)]


def read(stream: Any, start: int = START, end: int = START + 10**9, version: int = 0) -> list[tuple[int, float]]:
    return [(p.time, p.value) for p, _ in stream.values(start, end, version)]


def table(rows: list[tuple[int, float]]) -> pa.Table:
    schema = pa.schema(
        [
            pa.field("time", pa.timestamp("ns", tz="UTC"), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
        ]
    )
    return pa.Table.from_arrays([pa.array([t for t, _ in rows]), pa.array([v for _, v in rows])], schema=schema)


def test_a_wrong_key_is_refused_in_btrdbs_words(running: Any) -> None:
    with pytest.raises(BTrDBError, match="invalid api key"):
        btrdb.connect(running.endpoint, apikey="BOGUS")


def test_the_client_takes_it_for_a_server_with_arrow(conn: Any, running: Any) -> None:
    info = conn.info()
    assert info["majorVersion"] == 5
    assert info["proxy"]["proxyEndpoints"] == [running.endpoint]
    assert conn._ARROW_ENABLED


def test_points_inserted_are_points_read(stream: Any) -> None:
    version = stream.insert(points(100))
    assert read(stream) == points(100)
    assert stream.version() == version


def test_points_inserted_by_arrow_are_points_read_by_arrow(stream: Any) -> None:
    stream.arrow_insert(table(points(120_000)))
    got = stream.arrow_values(START, START + 10**12)
    assert got.equals(table(points(120_000)))


def test_times_are_kept_to_the_nanosecond(stream: Any) -> None:
    stream.insert([(START + 1, 1.0), (START + 2, 2.0)])
    assert read(stream) == [(START + 1, 1.0), (START + 2, 2.0)]


def test_points_come_in_the_order_of_their_times(stream: Any) -> None:
    stream.insert(points(10)[::-1])
    stream.insert([(START - 5, -1.0)])
    assert read(stream, START - 10) == [(START - 5, -1.0), *points(10)]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("never", [(1, 1.0), (1, 1.0), (1, 2.0), (2, 3.0)]),
        ("equal", [(1, 1.0), (1, 2.0), (2, 3.0)]),
        ("retain", [(1, 1.0), (2, 3.0)]),
        ("replace", [(1, 2.0), (2, 3.0)]),
    ],
)
def test_merge_policies(stream: Any, policy: str, left: list[tuple[int, float]]) -> None:
    stream.insert([(1, 1.0)], merge=policy)
    stream.insert([(1, 1.0), (1, 2.0), (2, 3.0)], merge=policy)
    assert read(stream, 0, 10) == left


def test_every_change_is_a_version_that_can_be_read_later(stream: Any) -> None:
    first = stream.insert(points(3))
    second = stream.insert([(START + 10 * MS, 9.0)])
    third = stream.delete(START, START + 2 * MS)
    assert first < second < third
    assert read(stream, version=first) == points(3)
    assert read(stream, version=second) == [*points(3), (START + 10 * MS, 9.0)]
    assert read(stream) == [points(3)[2], (START + 10 * MS, 9.0)]
    with pytest.raises(VersionNotAvailable):
        read(stream, version=third + 1)


def test_a_stream_replayed_from_its_changes_is_the_same(running: Any, conn: Any, stream: Any) -> None:
    stream.insert(points(10))
    stream.insert([(START + 20 * MS, 1.0), (START + 5 * MS, 50.0)], merge="replace")
    stream.delete(START + 2 * MS, START + 4 * MS)
    stream.insert(points(50)[30:])
    before = read(stream)
    running.server._store.forget()
    assert read(stream) == before
    assert len(before) == 8 + 1 + 20


def test_earliest_latest_nearest_and_count(stream: Any) -> None:
    stream.insert(points(1000))
    assert stream.earliest()[0] == RawPoint(START, 0.0)
    assert stream.latest()[0] == RawPoint(START + 999 * MS, 999.0)
    assert stream.nearest(START + 1, version=0, backward=False)[0] == RawPoint(START + MS, 1.0)
    assert stream.nearest(START + 1, version=0, backward=True)[0] == RawPoint(START, 0.0)
    assert stream.nearest(START, version=0, backward=False)[0] == RawPoint(START, 0.0)
    assert stream.nearest(START, version=0, backward=True) is None
    assert stream.count() == 1000
    assert stream.count(START, START + 500 * MS, precise=True) == 500


def test_an_empty_stream_has_no_points(stream: Any) -> None:
    assert stream.earliest() is None
    assert stream.count() == 0
    assert stream.values(START, START + 1) == []
    assert stream.arrow_values(START, START + 1).num_rows == 0


def test_windows_are_whole_and_hold_the_right_statistics(stream: Any) -> None:
    stream.insert(points(105))
    found = stream.windows(START, START + 105 * MS, width=10 * MS)
    assert len(found) == 10
    third = found[2][0]
    assert (third.time, third.min, third.mean, third.max, third.count) == (START + 20 * MS, 20.0, 24.5, 29.0, 10)
    assert third.stddev == pytest.approx(np.std(range(20, 30)))
    by_arrow = stream.arrow_windows(START, START + 105 * MS, width=10 * MS)
    assert by_arrow.column("mean").to_pylist() == [point.mean for point, _ in found]


def test_aligned_windows_start_at_powers_of_two_and_leave_out_what_is_empty(stream: Any) -> None:
    stream.insert([(0, 1.0), (1, 3.0), (64, 5.0), (129, 7.0)])
    found = stream.aligned_windows(3, 192, pointwidth=5)
    assert [(p.time, p.mean, p.count) for p, _ in found] == [(0, 2.0, 2), (64, 5.0, 1), (128, 7.0, 1)]


def test_tags_are_the_four_and_annotations_any(stream: Any, conn: Any) -> None:
    again = conn.stream_from_uuid(stream.uuid)
    assert again.tags() == {"name": "s", "unit": "A", "ingress": "", "distiller": ""}
    assert again.annotations() == ({"ps": "S"}, 1)
    again.update(tags={"name": "t"}, annotations={"more": {"a": 1}}, replace=True)
    fresh = conn.stream_from_uuid(stream.uuid)
    assert fresh.tags()["name"] == "t"
    annotations, version = fresh.annotations()
    assert annotations == {"more": {"a": 1}}
    assert version > 1


def test_streams_are_found_by_collection_tags_and_annotations(conn: Any) -> None:
    made = [conn.create(uuid4(), f"look/up/{k}", tags={"name": f"n{k}"}, annotations={"k": str(k)}) for k in range(3)]
    assert conn.list_collections("look/") == ["look/up/0", "look/up/1", "look/up/2"]
    assert [s.uuid for s in conn.streams_in_collection("look/up", is_collection_prefix=True)] == [s.uuid for s in made]
    assert [s.uuid for s in conn.streams_in_collection("look/up/1")] == [made[1].uuid]
    assert [s.uuid for s in conn.streams_in_collection("look", tags={"name": "n2"})] == [made[2].uuid]
    assert [s.uuid for s in conn.streams_in_collection("look", annotations={"k": "0"})] == [made[0].uuid]
    assert conn.streams("look/up/1/n1")[0].uuid == made[1].uuid


def test_a_select_over_streams_answers_as_postgresql_would(conn: Any) -> None:
    conn.create(uuid4(), "select/from", tags={"name": "a"}, annotations={"foo": "1"})
    conn.create(uuid4(), "select/from", tags={"name": "b"})
    rows = conn.query("select name from streams where collection = $1::text order by name desc;", ["select/from"])
    assert rows == [{"name": "b"}, {"name": "a"}]
    assert (
        conn.query("SELECT COUNT(uuid) FROM streams WHERE annotations->$1::text IS NOT NULL", ["foo"])[0]["count"] == 1
    )
    with pytest.raises(btrdb.exceptions.BadSQLValue):
        conn.query("drop table streams")
    with pytest.raises(btrdb.exceptions.BadSQLValue):
        conn.query("select * from changes")


def test_what_stands_in_quotes_in_a_select_is_left_as_it_is(conn: Any) -> None:
    names = ["streams/x", "a::text", "it's $1"]
    for name in names:
        conn.create(uuid4(), "select/streams", tags={"name": name})

    for name in names:
        quoted = name.replace("'", "''")
        rows = conn.query(f"select name, '$1::streams' as also from streams where name = '{quoted}'")
        assert rows == [{"name": name, "also": "$1::streams"}]
    rows = conn.query("select streams.name as streams from streams where collection = 'select/streams' order by 1")
    assert [row["streams"] for row in rows] == sorted(names)
    assert conn.query("select count(*) from streams where collection = 'select/streams'") == [{"count": 3}]


def test_what_cannot_be_is_refused_with_btrdbs_codes(conn: Any, stream: Any) -> None:
    with pytest.raises(StreamExists):
        conn.create(stream.uuid, "other", tags={"name": "x"})
    with pytest.raises(AmbiguousStream):
        conn.create(uuid4(), stream.collection, tags={"name": "s", "unit": "A"})
    with pytest.raises(InvalidTagKey):
        conn.create(uuid4(), "other", tags={"name": "x", "colour": "red"})
    with pytest.raises(InvalidCollection):
        conn.create(uuid4(), "x" * 257, tags={"name": "x"})
    with pytest.raises(InvalidTimeRange):
        stream.insert([(1 << 62, 1.0)])
    with pytest.raises(BadValue):
        stream.insert([(1, float("nan"))])
    with pytest.raises(StreamNotFoundError):
        conn.stream_from_uuid(uuid4()).insert(points(1))
    assert not conn.stream_from_uuid(uuid4()).exists()
    with pytest.raises(NoSuchPoint):
        conn.ep.nearest(stream.uuid, START, 0, False)


def test_an_obliterated_stream_is_gone_and_its_uuid_is_used_up(conn: Any, stream: Any) -> None:
    stream.insert(points(5))
    stream.flush()
    stream.obliterate()
    assert not conn.stream_from_uuid(stream.uuid).exists()
    with pytest.raises(RecycledUUID):
        conn.create(stream.uuid, "again", tags={"name": "s"})


def test_changes_tell_which_ranges_differ_between_versions(stream: Any, conn: Any) -> None:
    first = stream.insert([(0, 1.0)])
    stream.insert([(100, 1.0), (110, 1.0)])
    second = stream.insert([(1000, 1.0)])
    ranges = [(r.start, r.end) for part, _ in conn.ep.changes(stream.uuid, first, second, 4) for r in part]
    assert ranges == [(96, 112), (992, 1008)]


def test_several_streams_snap_to_a_common_period(conn: Any) -> None:
    one = conn.create(uuid4(), "snap", tags={"name": "1"})
    two = conn.create(uuid4(), "snap", tags={"name": "2"})
    one.insert([(500, 0.5), (2000, 2.0), (2750, 2.75)])
    two.insert([(499, 0.4), (2001, 2.1)])
    found = btrdb.stream.StreamSet([one, two]).filter(start=1000, end=3000, sampling_frequency=10**6).arrow_values()
    assert [t.value for t in found["time"]] == [1000, 2000]
    assert found[str(one.uuid)].to_pylist() == [0.5, 2.0]
    second = found[str(two.uuid)].to_pylist()
    assert np.isnan(second[0]) and second[1] == 2.1
