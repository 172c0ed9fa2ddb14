"""Whatever a producer may send to a hook's topic, over a real Kafka: what becomes of it is what docs/producing.md says."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pytest
from cryptography.fernet import Fernet
from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError

from dispatcher.dispatch import Dispatch
from ledger import Ledger
from ledger.handlers import NewHandler, register
from ledger.rules import Rules
from ledger.runs import runs
from schemas import contracts as known
from schemas.contracts import contract_of, contracts
from schemas.encoding import SINGLE_OBJECT, cloud_event_headers, encode
from schemas.errors import InvalidMessage
from schemas.events import read_event, run_id
from schemas.topics import SCHEMAS, topics
from stream import loop
from stream.kafka import KafkaBroker
from stream.letters import read_letters
from stream.schema_book import SchemaBook
from stream.schema_registry import SchemaRegistry
from stream.settings import StreamSettings
from telemetry.health import Health
from tests.admin.conftest import told
from tests.schema_registry import Registry, serving

HOOK = "ctingress.on_complete"
MIB = 1024 * 1024
SLOW_S = 120.0


def an_event(**changed: object) -> dict[str, Any]:
    return {
        "DataSets": [], "File": "a.zip", "RequestID": str(uuid.uuid4()), "SubmittedAt": "2026-01-01T12:00:00Z",
        "Tags": ["north"], **changed,
    }  # fmt: skip


def as_json(**changed: object) -> bytes:
    return json.dumps(an_event(**changed)).encode()


def without(field: str) -> bytes:
    event = an_event()
    del event[field]
    return json.dumps(event).encode()


def by(writer: Any, event: dict[str, Any]) -> bytes:
    """The event as Avro by that schema, without any framing."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, writer.parsed, {"Recordings": [], **event})
    return out.getvalue()


def a_later_release(field: str = "Later") -> Any:
    raw = json.loads(json.dumps(contracts()[HOOK].raw))
    raw["fields"].append({"name": field, "type": "string", "default": ""})
    return contract_of(HOOK, raw)


@dataclass
class Desk:
    """A dispatcher at work on a real Kafka, and a producer of any kind beside it."""

    broker: KafkaBroker
    book: SchemaBook
    ledger: Ledger
    raw: Any
    zipped: Any
    handler_id: int
    bootstrap: str
    group: str

    def send(self, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = (), *, zipped: bool = False) -> str:
        """Sends it; where it is."""
        done = (self.zipped if zipped else self.raw).send(HOOK, value=value, key=b"k", headers=list(headers)).get(30)
        return f"{HOOK}/{done.partition}/{done.offset}"

    def letter(self, place: str) -> str:
        """The reason for which the message there is a dead letter, once it is one."""
        return self.until(
            lambda: next(
                (k.letter.reason for k in read_letters(self.broker.admin(), self.book) if k.origin == place), ""
            ),
            f"a dead letter of {place}",
        )

    def ran(self, request_id: str) -> str:
        """The id of the one run that the event made, once it is there."""

        def look() -> str:
            with self.ledger.read() as session:
                found = runs(session, request_id)
            assert len(found) <= 1
            return found[0].run_id if found else ""

        return self.until(look, f"a run of {request_id}")

    @staticmethod
    def until(look: Callable[[], str], what: str) -> str:
        deadline = time.monotonic() + SLOW_S
        while not (found := look()):
            assert time.monotonic() < deadline, f"waited for {what}"
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def desk(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    patch = pytest.MonkeyPatch()
    for name in ("_learned", "_ids", "_written"):
        patch.setattr(known, name, {})
    settings = StreamSettings(bootstrap_servers=kafka_bootstrap, replication=1)
    broker = KafkaBroker(settings)
    broker.admin().ensure_topics(topics(("py3.11",)), 1, settings.max_message_bytes)
    folder: Path = tmp_path_factory.mktemp("ledger")
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", [Fernet.generate_key().decode()])
    ledger.migrate()
    with ledger.write() as session:
        view = register(session, NewHandler(HOOK, "h", "alice", ("north",), "", "", "py3.11", b"pickle"), "alice")
    group, stop = f"group-{uuid.uuid4().hex}", threading.Event()
    with serving() as url:
        registry = SchemaRegistry(url)
        producer = broker.producer()
        book = SchemaBook(broker.admin(), producer, registry, wait_s=2.0)
        thread = threading.Thread(
            target=loop.run,
            args=(broker.consumer([HOOK], group), Dispatch(ledger, producer, Rules())),
            kwargs={
                "dead_letters": producer, "group": group, "health": Health("dispatcher"), "stop": stop, "book": book,
                "limits": loop.Limits(schema_look_s=0.2, unreadable_share=1.0),
            },
        )  # fmt: skip
        thread.start()
        servers, most = [kafka_bootstrap], 80 * MIB
        raw = KafkaProducer(bootstrap_servers=servers, max_request_size=most, enable_idempotence=False)
        zipped = KafkaProducer(
            bootstrap_servers=servers, max_request_size=most, compression_type="gzip", enable_idempotence=False
        )
        yield Desk(
            broker, SchemaBook(broker.admin(), producer, registry, 0.0), ledger, raw, zipped, view.id, kafka_bootstrap,
            group,
        )  # fmt: skip
        stop.set()
        thread.join(60)
        raw.close()
        zipped.close()
    broker.close()
    ledger.close()
    patch.undo()


JSON = (("content-type", b"application/json"),)
RECORDING = {"Name": "/a", "Station": "s", "Device": "d", "Revision": 1999}
NOT_READ = [
    ("a tombstone", None, (), "the message is empty; it should be Avro"),
    ("an empty message", b"", (), "the message is empty; it should be Avro"),
    ("bytes of no kind", b"\xff\xfehello", (), "neither Avro single-object encoding (starts with c301) nor JSON"),
    ("text that claims to be JSON", b"hello", JSON, "not readable as JSON"),
    ("JSON cut short", as_json()[:-5], (), "not readable as JSON"),
    ("a list", b"[1]", JSON, "the message: should be an object, is [1]"),
    ("a missing field", without("File"), (), "File is missing"),
    ("a wrong type", as_json(Tags="north"), (), "Tags: should be a list, is 'north'"),
    ("a wrong type deep down", as_json(DataSets=[{"Name": "/a", "Success": 1}]), (), "DataSets[0].Success: should be true"),
    ("an id that is none", as_json(RequestID="seven"), (), "RequestID: should be a UUID as text, is 'seven'"),
    ("a day that is none", as_json(SubmittedAt="2026-02-30T00:00:00Z"), (), "SubmittedAt: should be RFC 3339 in UTC"),
    ("Avro cut short", encode(HOOK, {"Recordings": [], **an_event()})[:-3], (), "not readable by its schema"),
    ("Avro with more behind it", encode(HOOK, {"Recordings": [], **an_event()}) + b"x", (), "bytes are left over after the"),
    ("a number beyond all numbers", as_json(Recordings=[{**RECORDING, "LineFrequencyHz": 10**400}]), (), "a number below 1.8e308"),
    ("lists in lists without end", b'{"Tags": ' + b"[" * 100_000, JSON, "not readable as JSON"),
    ("half a letter", as_json(File="\ud800"), (), "File: has a lone surrogate"),
    ("a fingerprint nobody knows", SINGLE_OBJECT + b"12345678" + b"x", (), "unknown Avro schema fingerprint 3132333435363738"),
    ("an id the registry does not have", b"\0\0\0\0\x63abc", (), "id 99, which nobody here knows; is EVENTPROC_SCHEMA_REGISTRY_URL set"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "headers", "says"), [c[1:] for c in NOT_READ], ids=[c[0] for c in NOT_READ])
def test_what_cannot_be_read_is_a_dead_letter_that_says_why(value: Any, headers: Any, says: str, desk: Desk) -> None:
    assert says in desk.letter(desk.send(value, headers))


def test_every_encoding_and_the_liberties_of_json_make_the_run(desk: Desk) -> None:
    events = [an_event() for _ in range(8)]
    ids = [event["RequestID"] for event in events]
    avro, newer = {"Recordings": [], **events[0]}, a_later_release()
    Registry.schemas[1] = json.dumps(contracts()[HOOK].raw)
    stream = {"Uuid": "u", "StartNs": "1591844350000000001", "EndNs": 1591844350000000002, "ProcessedAtNs": 3}
    events[4]["DataSets"] = [{"Name": "/a", "Success": True, "Streams": {"array": [stream]}}]

    desk.send(encode(HOOK, avro), tuple(cloud_event_headers(HOOK, ids[0], "/tests", "2026-01-01T12:00:00Z")))
    desk.send(b"\0" + (1).to_bytes(4, "big") + by(contracts()[HOOK], events[1]))
    later = SINGLE_OBJECT + newer.fingerprint + by(newer, {**events[2], "Later": "x"})
    place = desk.send(later)  # its schema comes after it, as when a producer is upgraded first
    desk.broker.producer().send(SCHEMAS, json.dumps(newer.raw).encode(), key=newer.fingerprint.hex().encode())
    desk.send(json.dumps(events[3]).encode(), (*JSON, ("ce_type", b"something.else"), ("ce_id", b"1")))
    desk.send(b"\xef\xbb\xbf" + json.dumps(events[4]).encode())
    envelope = {"specversion": "1.0", "id": "1", "source": "/x", "type": HOOK, "data": events[5]}
    desk.send(json.dumps(envelope).encode(), (("content-type", b"application/cloudevents+json"),))
    desk.send(json.dumps({**events[6], "Unknown": 1, "Tags": [f"t{n}" for n in range(50_000)] + ["north"]}).encode())
    desk.send(
        json.dumps(
            {**events[7], "File": "\0\x1b[2J \u202e\u00e9\u4e8b\U0001f4a5" * 1000, "Tags": ["north", "\0"]}
        ).encode()
    )

    assert place and [desk.ran(one) for one in ids] == [run_id(HOOK, one, desk.handler_id) for one in ids]


class Named(str):
    """A header's name that is not UTF-8 when it is written."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_kafka_is_read_and_a_headers_name_may_be_any_bytes(codec: str, desk: Desk) -> None:
    event = an_event()
    producer = KafkaProducer(bootstrap_servers=[desk.bootstrap], compression_type=codec)

    producer.send(HOOK, json.dumps(event).encode(), headers=[(Named("x"), b"1"), *JSON]).get(30)
    producer.close()

    assert desk.ran(event["RequestID"])


def test_a_batch_that_unpacks_to_more_than_is_taken_is_a_dead_letter_and_the_next_event_runs(desk: Desk) -> None:
    place = desk.send(bytes(8 * 8 * MIB), zipped=True)
    event = an_event()
    desk.send(json.dumps(event).encode())

    assert "a batch of messages cannot be read (1, up to offset" in (reason := desk.letter(place))
    assert "compressed by gzip: it holds more than 67108864 bytes (8 times EVENTPROC_MAX_MESSAGE_BYTES)" in reason
    assert desk.ran(event["RequestID"])


def test_what_a_transaction_wrote_and_took_back_never_runs_and_what_it_committed_does(desk: Desk) -> None:
    taken_back, committed = an_event(), an_event()
    producer = KafkaProducer(bootstrap_servers=[desk.bootstrap], transactional_id=f"tx-{uuid.uuid4()}")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(HOOK, json.dumps(taken_back).encode(), key=b"k").get(30)
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send(HOOK, json.dumps(committed).encode(), key=b"k").get(30)
    producer.commit_transaction()
    producer.close()

    assert desk.ran(committed["RequestID"])  # it stands behind the other in the same partition
    with desk.ledger.read() as session:
        assert runs(session, taken_back["RequestID"]) == []
    desk.until(
        lambda: "yes" if desk.broker.admin().lag(desk.group, HOOK) == 0 else "", "all to be done with, the marks too"
    )


def test_an_id_sent_again_runs_once_and_one_used_for_another_event_is_a_dead_letter(desk: Desk) -> None:
    event = an_event()
    desk.send(json.dumps(event).encode())
    desk.send(json.dumps({**event, "SubmittedAt": "2026-01-02T00:00:00Z"}).encode())
    other = desk.send(json.dumps({**event, "File": "b.zip"}).encode())

    assert "was used before by another event, which was of 'a.zip'" in desk.letter(other)
    assert desk.ran(event["RequestID"])


def test_a_dead_letter_is_sent_again_by_its_number_and_makes_the_run_that_it_would_have_made(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, newer = an_event(), a_later_release("Latest")
    desk.letter(desk.send(SINGLE_OBJECT + newer.fingerprint + by(newer, {**event, "Latest": "x"})))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", desk.bootstrap)
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", desk.ledger.engine.url.render_as_string())
    (letter,) = told("dead-letters", "list", "--reason", newer.fingerprint.hex())
    desk.broker.producer().send(SCHEMAS, json.dumps(newer.raw).encode(), key=newer.fingerprint.hex().encode())

    assert len(told("dead-letters", "redrive", str(letter["number"]), "--dry-run")["letters"]) == 1
    assert told("dead-letters", "redrive", str(letter["number"]))["sent"]

    assert desk.ran(event["RequestID"]) == run_id(HOOK, event["RequestID"], desk.handler_id)


def test_ten_megabytes_are_refused_by_the_topic_and_what_only_compressed_gets_through_by_the_dispatcher(
    desk: Desk,
) -> None:
    with pytest.raises(MessageSizeTooLargeError):
        desk.send(as_json(File="x" * (10 * MIB)))
    small = an_event(File="x" * (10 * MIB))
    desk.send(json.dumps(small).encode(), zipped=True)
    assert desk.ran(small["RequestID"])
    reason = desk.letter(desk.send(as_json(File="x" * (40 * MIB)), zipped=True))
    assert "bytes as JSON; at most 33554432 are taken (DISPATCHER_EVENT_BYTES)" in reason
    assert reason.endswith("only the first 1048576 are kept, and no headers]")


def test_a_hook_that_is_none_is_told_with_those_there_are() -> None:
    with pytest.raises(InvalidMessage, match=r"no hook is called 'x'; there are: ctingress\.on_complete"):
        read_event("x", as_json())
