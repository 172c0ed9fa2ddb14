"""The stand-in for BTrDB beside the development server: one function reads both, and sees the same."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from typing import Any

import btrdb
import pytest
from btrdb.exceptions import InvalidTimeRange, StreamNotFoundError, VersionNotAvailable

from btrdbextras import Connection
from btrdbextras.eventproc import sample, sample_event, try_handler
from btrdbextras.eventproc.stand_in import sample_btrdb
from tests.btrdb_server import Running, start

MS = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A development server that holds the streams of the sample event."""
    with pytest.MonkeyPatch.context() as env:
        running = start(tmp_path_factory.mktemp("btrdb"))
        env.setenv("BTRDB_CA_BUNDLE", str(running.settings.ca))
        conn = btrdb.connect(running.endpoint, apikey=running.key)
        for recording in sample_event()["Recordings"]:
            for one in recording["Streams"]:
                notes = {"kind": one["Kind"], "phase": one["Phase"], "ps": one["PS"]}
                stream = conn.create(
                    uuid.UUID(one["Uuid"]),
                    one["Collection"],
                    tags={"name": one["Name"], "unit": one["Unit"]},
                    annotations={name: value for name, value in notes.items() if value},
                )
                stream.insert(sample.samples(one))
        yield running
        running.server.stop()


def reads_one(btrdb: Any, DataSets: Any) -> str:
    import json

    uuids = [stream["Uuid"] for one in DataSets if one["Success"] for stream in one["Streams"]]
    start, end = DataSets[0]["Streams"][0]["StartNs"], DataSets[0]["Streams"][0]["EndNs"] + 1
    stream = btrdb.stream_from_uuid(uuids[0])

    def stats(windows: Any) -> Any:
        return [(p.time, p.min, round(p.mean, 9), p.max, p.count, round(p.stddev, 9)) for p, _ in windows]

    def pair(found: Any) -> Any:
        return found and (found[0].time, found[0].value)

    return json.dumps(
        {
            "stream": (
                stream.name,
                stream.unit,
                stream.collection,
                stream.tags(),
                stream.annotations(),
                stream.version(),
            ),
            "exists": stream.exists(),
            "values": [(p.time, p.value) for p, _ in stream.values(start + 5, start + 10**7)],
            "count": [stream.count(), stream.count(start, start + 10**8, precise=True), stream.count(start, end, 20)],
            "ends": [pair(stream.earliest()), pair(stream.latest())],
            "nearest": [
                pair(stream.nearest(at, version=0, backward=back))
                for at in (start, start + 1, end, end + 1)
                for back in (False, True)
            ],
            "aligned": stats(stream.aligned_windows(start, end, 25)),
            "windows": stats(stream.windows(start + 3, end, 10**7)),
            "arrow": stream.arrow_values(start, start + 10**6).to_pydict()["value"],
            "arrow_aligned": stream.arrow_aligned_windows(start, end, 26).to_pydict()["count"],
            "arrow_windows": stream.arrow_windows(start, end, 10**8).to_pydict()["max"],
            "nothing": [stream.values(0, 5), stream.arrow_values(0, 5).num_rows],
        },
        default=str,
    )


def reads_many(btrdb: Any, DataSets: Any) -> str:
    import json
    import re

    uuids = [stream["Uuid"] for one in DataSets if one["Success"] for stream in one["Streams"]]
    start = DataSets[0]["Streams"][0]["StartNs"]
    streams = btrdb.streams(*uuids)
    some, windows = (
        streams.filter(start=start, end=start + 10**8, unit="A", name=re.compile("I[AB]")) for _ in range(2)
    )
    slow = btrdb.streams(*uuids[:2]).filter(start=start, end=start + 10**8, sampling_frequency=100)
    windows.windows(width=10**7)
    return json.dumps(
        {
            "kind": (type(streams).__module__, type(streams).__name__, len(streams), [s.name for s in some]),
            "values": [[(p.time, p.value) for p in one] for one in some.values()],
            "count": some.count(),
            "frame": some.to_dataframe().round(9).to_csv(),
            "series": [one.round(9).to_csv() for one in some.to_series()],
            "means": windows.to_dataframe().round(9).to_csv(),
            "arrow": some.arrow_to_dataframe().round(9).to_csv(),
            "slow": slow.arrow_values().to_pydict(),
            "statistics": windows.arrow_to_dataframe(agg=["all"]).round(9).to_csv(),
            "earliest": [(p.time, p.value) for p in some.earliest()],
            "named": btrdb.streams(streams[1].collection + "/IB")[0].uuid,
            "collections": btrdb.list_collections("north/"),
            "found": [
                sorted(str(s.uuid) for s in found)
                for found in (
                    btrdb.streams_in_collection("north"),
                    btrdb.streams_in_collection("north/relay_1", is_collection_prefix=False, tags={"unit": "A"}),
                    btrdb.streams_in_collection("north", annotations={"kind": "status"}),
                    btrdb.streams_in_collection("north", is_collection_prefix=False),
                )
            ],
            "usage": btrdb.collection_metadata("north"),
        },
        default=str,
    )


def errs(btrdb: Any, DataSets: Any) -> str:
    import uuid

    stream = btrdb.stream_from_uuid(DataSets[0]["Streams"][0]["Uuid"])
    nowhere = btrdb.stream_from_uuid(uuid.UUID(int=7))
    found = [str(nowhere.exists())]
    calls: Any = (
        lambda: stream.values(5, 5),
        lambda: stream.arrow_values(0, 1 << 62),
        lambda: stream.windows(9, 5, 2),
        lambda: stream.aligned_windows(0, 5, 64),
        lambda: stream.nearest(1 << 62, 0),
        lambda: stream.values(0, 5, version=99),
        lambda: nowhere.values(0, 5),
        lambda: nowhere.tags(),
    )
    for call in calls:
        try:
            found.append(str(call()))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be the same
            found.append(type(error).__name__)
    return " ".join(found)


def everything(btrdb: Any, DataSets: Any) -> str:
    return "\n".join(read(btrdb, DataSets) for read in (reads_one, reads_many, errs))


def test_a_function_sees_the_same_in_the_stand_in_and_in_a_server(server: Running) -> None:
    at_the_desk = try_handler(everything)
    of_a_server = try_handler(everything, sample_event(), btrdb=Connection(server.endpoint, server.key))

    assert at_the_desk.ok, at_the_desk
    assert of_a_server.ok, of_a_server
    assert at_the_desk.text.splitlines() == of_a_server.text.splitlines()


def test_it_refuses_as_btrdb_does_and_says_what_it_holds() -> None:
    held = sample_btrdb()
    (one, *_) = held.streams_in_collection("north/relay_1")

    with pytest.raises(StreamNotFoundError, match=r"try_handler\(..., btrdb=conn\) reads real ones"):
        held.stream_from_uuid(uuid.UUID(int=7)).values(0, 1)
    with pytest.raises(InvalidTimeRange):
        one.values(1, 1)
    with pytest.raises(VersionNotAvailable):
        one.values(0, 1, version=3)


def test_what_writes_is_refused_with_where_it_can_be_done() -> None:
    held = sample_btrdb()
    (one, *_) = held.streams_in_collection("north/relay_1")

    writes: Any = (
        lambda: one.insert([(1, 1.0)]),
        lambda: one.delete(0, 1),
        lambda: held.create(uuid.uuid4(), "mine", tags={"name": "n"}),
        lambda: held.query("select 1"),
    )
    for write in writes:
        with pytest.raises(PermissionError, match=r"to be read; try_handler\(..., btrdb=conn\) reaches the real one"):
            write()


def test_where_btrdb_cannot_be_imported_it_says_so_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "btrdb.conn", None)

    held = sample_btrdb()

    with pytest.raises(ImportError, match=r"btrdb cannot be imported here .* btrdb.streams cannot be had at the desk"):
        held.streams("a")


def test_an_open_connection_is_dialled_anew_where_its_key_is_known(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(btrdb: Any) -> str:
        return str(btrdb.info()["build"])

    monkeypatch.setenv("BTRDB_CA_BUNDLE", str(server.settings.ca))
    monkeypatch.delenv("BTRDB_ENDPOINTS", raising=False)
    monkeypatch.delenv("BTRDB_API_KEY", raising=False)
    opened = btrdb.connect(server.endpoint, apikey=server.key)

    with pytest.raises(ValueError, match=r"does not tell its key .*; pass btrdbextras.Connection\(endpoint, apikey\)"):
        try_handler(build, sample_event(), btrdb=opened)
    monkeypatch.setenv("BTRDB_API_KEY", server.key)
    monkeypatch.setenv("BTRDB_ENDPOINTS", "other.example.com:4411")
    with pytest.raises(ValueError, match=r"BTRDB_API_KEY is for other\.example\.com:4411"):
        try_handler(build, sample_event(), btrdb=opened)
    monkeypatch.setenv("BTRDB_ENDPOINTS", server.endpoint)
    assert try_handler(build, sample_event(), btrdb=opened).text == opened.info()["build"]
    with pytest.raises(TypeError, match=r"btrdb should be a Connection\(...\), or what btrdb.connect\(\) gave"):
        try_handler(build, sample_event(), btrdb=opened.stream_from_uuid(uuid.UUID(int=7)))
