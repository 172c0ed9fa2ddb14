"""A key that is kept to some collections sees these and what is below them, and nothing else, by whatever call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import btrdb
import grpc
import pyarrow as pa
import pytest

from tests.btrdb_server import Running, limit_key

T0 = 1_600_000_000_000_000_000


@pytest.fixture(scope="module")
def bob(running: Running) -> Any:
    """The public client with a key for collection scope/north."""
    return btrdb.connect(running.endpoint, apikey=limit_key(running, "bob", ["scope/north"]))


@pytest.fixture(scope="module")
def hidden(conn: Any) -> Any:
    """A stream that bob may not see."""
    stream = conn.create(uuid4(), "scope/northwest", tags={"name": "s"}, annotations={"secret": "1"})
    stream.insert([(T0, 1.0)])
    return stream


CALLS: dict[str, Callable[[Any], Any]] = {
    "values": lambda s: s.values(T0, T0 + 1),
    "arrow_values": lambda s: s.arrow_values(T0, T0 + 1),
    "aligned_windows": lambda s: s.aligned_windows(0, T0 * 2, 40),
    "windows": lambda s: s.windows(0, T0 * 2, 1 << 40),
    "arrow_windows": lambda s: s.arrow_windows(0, T0 * 2, 1 << 40),
    "nearest": lambda s: s.nearest(T0, 0),
    "insert": lambda s: s.insert([(T0, 2.0)]),
    "arrow_insert": lambda s: s.arrow_insert(
        pa.table({"time": pa.array([T0], pa.timestamp("ns", tz="UTC")), "value": [1.0]})
    ),
    "delete": lambda s: s.delete(T0, T0 + 1),
    "tags": lambda s: s.tags(),
    "annotations": lambda s: s.annotations(),
    "version": lambda s: s.version(),
    "update": lambda s: s.update(annotations={"a": "b"}),
    "flush": lambda s: s.flush(),
    "obliterate": lambda s: s.obliterate(),
    "multi": lambda s: btrdb.stream.StreamSet([s, s]).filter(start=T0, end=T0 + 9, sampling_frequency=0).arrow_values(),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_reaches_a_stream_beyond_the_key(bob: Any, hidden: Any, call: str) -> None:
    with pytest.raises(grpc.RpcError, match="bob may not see collection scope/northwest"):
        CALLS[call](bob.stream_from_uuid(hidden.uuid))
    assert [tuple(p) for p, _ in hidden.values(T0, T0 + 1)] == [(T0, 1.0)]


def test_what_is_below_its_collections_is_the_keys_to_read_and_write(bob: Any) -> None:
    stream = bob.create(uuid4(), "scope/north/line4", tags={"name": "s"})
    stream.insert([(T0, 5.0)])
    assert [tuple(p) for p, _ in stream.values(T0, T0 + 1)] == [(T0, 5.0)]
    assert bob.list_collections("scope/") == ["scope/north/line4"]


def test_a_stream_is_neither_made_nor_moved_beyond_the_key(bob: Any) -> None:
    with pytest.raises(grpc.RpcError, match="bob may not see collection scope/south"):
        bob.create(uuid4(), "scope/south", tags={"name": "s"})
    stream = bob.create(uuid4(), "scope/north", tags={"name": "moving"})
    with pytest.raises(grpc.RpcError, match="bob may not see collection scope/south"):
        stream.update(collection="scope/south")


def test_lists_and_queries_leave_out_what_is_beyond_the_key(bob: Any, conn: Any, hidden: Any) -> None:
    own = bob.create(uuid4(), "scope/north/lists", tags={"name": "s"})
    found = [s.uuid for s in bob.streams_in_collection("scope", is_collection_prefix=True)]
    assert own.uuid in found
    assert hidden.uuid not in found
    assert "secret" not in bob.list_unique_annotations("scope")
    assert "secret" in conn.list_unique_annotations("scope")
    for statement in (
        "select uuid from streams",
        'select uuid from main."STREAMS"',
        "select uuid from [streams] s",
        "select uuid from main.'streams'",
        "with streams as (select * from main.streams) select uuid from streams",
        "with visible as (select * from main.streams) select uuid from visible",
        "select uuid from streams where exists (select 1 from main.streams)",
    ):
        try:
            rows = bob.query(statement)
        except btrdb.exceptions.BadSQLValue:
            continue
        assert str(hidden.uuid) not in [row["uuid"] for row in rows]
