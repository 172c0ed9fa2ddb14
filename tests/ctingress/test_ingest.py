"""From an archive to BTrDB and the event: over the development server with the public client, and a broker in memory."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import btrdb
import numpy as np
import pytest

from ctingress.ingest import Ingested, Options, ingest
from ctingress.open import Limits
from ctingress.refuse import BadArchive
from ctingress.write import NotWritten
from examples.make_comtrade import fault_archive
from schemas.encoding import decode
from schemas.errors import InvalidMessage, TryLater
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.btrdb_server import Running

from .conftest import DAT, Cfg, MakeZip

HOOK = "ctingress.on_complete"
LIMITS = Limits(1000, 1 << 30, 200)
MIB = 1 << 20
FIELD = Path(__file__).parents[3] / "shared/comtrade/field_recordings.zip"


@pytest.fixture(scope="module")
def conn(server: Running) -> Any:
    return btrdb.connect(server.endpoint, apikey=server.key)


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics(("py3.11",), 1), 1, 8 * MIB)
    return broker


def run(path: Path, conn: Any, broker: MemoryBroker, largest: int = MIB, **options: Any) -> Ingested:
    return ingest(
        path, Options(**options), conn, broker.producer(), limits=LIMITS, largest_message=largest, timeout_s=5
    )


def events(broker: MemoryBroker) -> list[dict[str, Any]]:
    return [decode(HOOK, message.value, message.headers) for message in broker.messages(HOOK)]


def streams_of(conn: Any, event: dict[str, Any]) -> dict[str, Any]:
    return {s["Name"]: conn.stream_from_uuid(s["Uuid"]) for r in event["Recordings"] for s in r["Streams"]}


def values_of(stream: Any) -> Any:
    return stream.values(stream.earliest()[0].time, stream.latest()[0].time + 1)


def test_every_channel_lands_in_btrdb_and_the_event_says_where(
    tmp_path: Path, conn: Any, broker: MemoryBroker, prefix: str
) -> None:
    path = tmp_path / "fault.zip"
    fault_archive(path, start=datetime(2020, 6, 10, 22, 59, 10, 350000))

    ingested = run(path, conn, broker, tags=("north", "line-4"), prefix=prefix)

    (event,) = events(broker)
    assert (event["File"], event["RequestID"]) == ("fault.zip", ingested.request_id)
    assert sorted(event["Tags"]) == ["line-4", "north"]
    (data_set,), (recording,) = event["DataSets"], event["Recordings"]
    assert (data_set["Success"], data_set["Error"], len(data_set["Streams"])) == (True, "", 10)
    streams = streams_of(conn, event)
    ia = streams["IA"]
    assert ia.collection == f"{prefix}/comtrade/North Substation/Line 4 relay/4800Hz"
    assert ia.tags() == {"name": "IA", "unit": "A", "ingress": "comtrade", "distiller": ""}
    notes = ia.annotations()[0]
    assert {k: notes[k] for k in ("ps", "primary", "secondary", "phase", "kind")} == {
        "ps": "S", "primary": 1200, "secondary": 5, "phase": "A", "kind": "analog",
    }  # fmt: skip
    assert float(notes["to_primary"]) == 240.0
    assert data_set["Streams"][0]["StartNs"] == recording["StartNs"] == ia.earliest()[0].time
    assert data_set["Streams"][0]["EndNs"] == ia.latest()[0].time
    assert ia.count() == streams["TRIP"].count() == 2400


def test_ingesting_twice_adds_neither_a_stream_nor_a_point(
    tmp_path: Path, conn: Any, broker: MemoryBroker, prefix: str
) -> None:
    path = tmp_path / "fault.zip"
    fault_archive(path, start=datetime(2020, 6, 10))
    run(path, conn, broker, prefix=prefix)
    before = {s.uuid: s.count() for s in conn.streams_in_collection(prefix, is_collection_prefix=True)}

    run(path, conn, broker, prefix=prefix)

    after = {s.uuid: s.count() for s in conn.streams_in_collection(prefix, is_collection_prefix=True)}
    assert before == after and len(before) == 10
    assert len(events(broker)) == 2


def test_the_same_request_id_is_the_same_event_again(
    tmp_path: Path, conn: Any, broker: MemoryBroker, prefix: str
) -> None:
    path = tmp_path / "fault.zip"
    fault_archive(path, start=datetime(2020, 6, 10))
    given = "5a0f0f5c-0000-4000-8000-0000000000ab"
    for _ in range(2):
        run(path, conn, broker, prefix=prefix, request_id=given)

    assert {event["RequestID"] for event in events(broker)} == {given}
    assert {message.key for message in broker.messages(HOOK)} == {given.encode()}


def test_an_unreadable_pair_is_in_the_event_with_its_error_and_the_rest_goes_on(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT[:-6], "b.cfg": cfg(), "b.dat": DAT, "__MACOSX/._b.cfg": b"\0\5\26\7"})

    run(path, conn, broker, prefix=prefix)

    (event,) = events(broker)
    by_name = {data_set["Name"]: data_set for data_set in event["DataSets"]}
    assert [by_name[name]["Success"] for name in ("/a.cfg", "/b.cfg", "/__MACOSX/._b.cfg")] == [False, True, False]
    assert by_name["/a.cfg"]["Streams"] is None and by_name["/a.cfg"]["Error"]
    assert [recording["Name"] for recording in event["Recordings"]] == ["/b.cfg"]


def test_an_archive_of_which_nothing_can_be_read_still_has_its_event(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg
) -> None:
    run(make_zip({"a.cfg": cfg()}), conn, broker)

    assert [data_set["Success"] for data_set in events(broker)[0]["DataSets"]] == [False]


def test_a_name_that_repeats_has_a_stream_for_each_channel(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    statuses = ["1,Off,,,0", "2,Off,,,0"]
    dat = b"1,0,10,0,1\r\n2,1000,20,1,0\r\n3,2000,30,0,1\r\n"

    run(make_zip({"a.cfg": cfg(statuses=statuses), "a.dat": dat}), conn, broker, prefix=prefix)

    streams = streams_of(conn, events(broker)[0])
    assert set(streams) == {"IA", "Off 1", "Off 2"}
    assert [point.value for point, _ in values_of(streams["Off 2"])] == [1, 0, 1]
    assert streams["Off 2"].annotations()[0]["channel"] == "Off"


def test_channels_of_one_name_and_number_keep_their_values_apart(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    rows = [[1 if channel == sample else 0 for channel in range(5)] for sample in range(3)]
    dat = "".join(f"{n},{n},10,{','.join(map(str, row))}\r\n" for n, row in enumerate(rows, 1)).encode()
    path = make_zip({"a.cfg": cfg(statuses=["0,Off,,,0"] * 5), "a.dat": dat})

    for _ in range(2):
        run(path, conn, broker, prefix=prefix)

    first, second = events(broker)
    assert first["DataSets"][0]["Streams"][1]["Uuid"] == second["DataSets"][0]["Streams"][1]["Uuid"]
    streams = [conn.stream_from_uuid(s["Uuid"]) for s in first["Recordings"][0]["Streams"][1:]]
    assert [[point.value for point, _ in values_of(stream)] for stream in streams] == [
        [row[channel] for row in rows] for channel in range(5)
    ]
    assert len(conn.streams_in_collection(prefix, is_collection_prefix=True)) == 6


def test_a_unit_longer_than_btrdb_takes_is_cut_and_whole_in_the_annotation(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    unit = "A" * 300
    analog = f"1,IA,A,Line 4,{unit},0.5,1,0,-32767,32767,1200,5,S"

    run(make_zip({"a.cfg": cfg(analogs=[analog]), "a.dat": DAT}), conn, broker, prefix=prefix)

    (event,) = events(broker)
    stream = streams_of(conn, event)["IA"]
    assert len(stream.tags()["unit"]) == 256 and stream.tags()["unit"].startswith("A" * 200)
    assert stream.annotations()[0]["unit"] == unit == event["Recordings"][0]["Streams"][0]["Unit"]


def test_what_the_reader_did_not_foresee_is_the_error_of_that_recording_alone(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    told = cfg(head="N,R,2013", tail=("1", "0,0", "0,0"))
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT, "b.cfg": told, "b.dat": DAT})

    # nobody has checked this zone, which only the first recording needs
    ingested = run(path, conn, broker, prefix=prefix, zone="Mars/Olympus")

    (event,) = events(broker)
    assert [data_set["Success"] for data_set in event["DataSets"]] == [False, True]
    assert "does not cope with it (ZoneInfoNotFoundError: " in event["DataSets"][0]["Error"]
    assert len(ingested.data_sets) == 2


def test_a_file_name_that_is_not_utf_8_is_readable_in_the_event(
    tmp_path: Path, conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT}).rename(tmp_path / os.fsdecode(b"Umspannwerk S\xfcd.zip"))

    run(path, conn, broker, prefix=prefix)

    assert events(broker)[0]["File"] == "Umspannwerk Süd.zip"


def test_values_are_in_the_cfgs_unit_and_a_missing_sample_is_no_point(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    dat = b"1,0,10,0\r\n2,1000,,1\r\n3,2000,30,0\r\n"

    run(make_zip({"a.cfg": cfg(), "a.dat": dat}), conn, broker, prefix=prefix, zone="-4")

    (event,) = events(broker)
    recording = event["Recordings"][0]
    streams = streams_of(conn, event)
    start = 1591844350_350000000
    assert [(p.time, p.value) for p, _ in values_of(streams["IA"])] == [(start, 6.0), (start + 2_000_000, 16.0)]
    assert streams["TRIP"].count() == 3
    assert recording["MissingSamples"] == 1
    assert (recording["UtcOffsetSource"], recording["UtcOffset"]) == ("option", "-04:00")


def test_without_an_offset_utc_is_assumed_and_the_event_says_so(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    run(make_zip({"a.cfg": cfg(), "a.dat": DAT}), conn, broker, prefix=prefix)

    assert events(broker)[0]["Recordings"][0]["UtcOffsetSource"] == "assumed"


def test_the_name_after_c37_232_tells_the_offset(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    name = "200610,230000000,-4t,R108-North Anna #1,APP601,Dominion,M1094"

    run(make_zip({f"x/{name}.cfg": cfg(), f"x/{name}.DAT": DAT}), conn, broker, prefix=prefix)

    recording = events(broker)[0]["Recordings"][0]
    assert recording["StartNs"] == 1591844350_350000000
    assert recording["UtcOffsetSource"] == "file_name"


def test_processing_of_a_stream_begins_before_its_event_and_in_order(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    run(make_zip({"a.cfg": cfg(), "a.dat": DAT}), conn, broker, prefix=prefix)

    (event,) = events(broker)
    began = [stream["ProcessedAtNs"] for stream in event["DataSets"][0]["Streams"]]
    submitted = int(np.datetime64(event["SubmittedAt"].rstrip("Z"), "ns").astype(np.int64))
    assert submitted < began[0] <= began[1] <= broker.messages(HOOK)[0].timestamp_ms * 1_000_000 + 1_000_000


@pytest.mark.parametrize(
    "content, said", [(b"no zip", "is no zip archive"), (b"", "is no zip archive")], ids=["text", "empty file"]
)
def test_a_bad_archive_publishes_nothing(
    tmp_path: Path, conn: Any, broker: MemoryBroker, content: bytes, said: str
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)

    with pytest.raises(BadArchive, match=said):
        run(path, conn, broker)
    assert events(broker) == []


def test_an_event_that_would_be_too_large_is_refused_before_the_first_point(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT})

    with pytest.raises(InvalidMessage, match="split it, or raise EVENTPROC_MAX_MESSAGE_BYTES"):
        run(path, conn, broker, largest=4500, prefix=prefix)

    assert conn.streams_in_collection(prefix, is_collection_prefix=True) == []
    assert events(broker) == []


def test_when_kafka_is_away_the_archive_can_be_ingested_again(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT})
    broker.away = True
    with pytest.raises(TryLater):
        run(path, conn, broker, prefix=prefix)
    broker.away = False

    run(path, conn, broker, prefix=prefix)

    (event,) = events(broker)
    assert streams_of(conn, event)["IA"].count() == 3


def test_a_collection_whose_name_another_stream_holds_is_not_written_and_not_published(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    from uuid import uuid4

    tags = {"name": "IA", "unit": "A", "ingress": "comtrade", "distiller": ""}
    conn.create(uuid4(), f"{prefix}/comtrade/North/Relay/1000Hz", tags=tags)

    with pytest.raises(NotWritten, match="IA"):
        run(make_zip({"a.cfg": cfg(), "a.dat": DAT}), conn, broker, prefix=prefix)
    assert events(broker) == []


def test_a_recording_that_tells_no_trigger_has_none_in_its_event(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    run(make_zip({"a.cfg": cfg(trigger="00/00/0000,00:00:00"), "a.dat": DAT}), conn, broker, prefix=prefix)

    assert events(broker)[0]["Recordings"][0]["TriggerNs"] is None


def test_start_and_end_are_the_earliest_and_latest_sample_whatever_their_order(
    conn: Any, broker: MemoryBroker, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    dat = b"1,500,10,0\r\n2,2000,20,1\r\n3,1000,30,0\r\n"

    run(make_zip({"a.cfg": cfg(rates=["0", "0,3"]), "a.dat": dat}), conn, broker, prefix=prefix)

    (event,) = events(broker)
    stream = streams_of(conn, event)["IA"]
    told = event["DataSets"][0]["Streams"][0]
    start = 1591829950_350000000
    assert [p.time - start for p, _ in values_of(stream)] == [500_000, 1_000_000, 2_000_000]
    assert (told["StartNs"], told["EndNs"]) == (start + 500_000, start + 2_000_000)


@pytest.mark.skipif(not FIELD.exists(), reason="there are no field recordings beside this clone")
def test_field_recordings_come_in_whole(conn: Any, broker: MemoryBroker, prefix: str) -> None:
    run(FIELD, conn, broker, prefix=prefix, largest=8 * MIB)

    (event,) = events(broker)
    good = [data_set for data_set in event["DataSets"] if data_set["Success"]]
    assert good and len(event["Recordings"]) == len(good)
    for recording in event["Recordings"]:
        for described in recording["Streams"]:
            stream = conn.stream_from_uuid(described["Uuid"])
            assert stream.earliest()[0].time >= recording["StartNs"]
    bad = [data_set for data_set in event["DataSets"] if not data_set["Success"]]
    assert all("__MACOSX" in data_set["Name"] for data_set in bad)
