"""Schemas that others write by: looked up in the topic or the registry, waited for, and only then unreadable."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fastavro
import pytest

from schemas import contracts as known
from schemas.contracts import Contract, contract_of, contracts
from schemas.encoding import SINGLE_OBJECT, decode, encode
from schemas.errors import InvalidMessage, TryLater
from schemas.topics import DEAD_LETTERS, SCHEMAS, Topic
from stream import loop
from stream.letters import Rejected
from stream.memory import MemoryBroker
from stream.messages import Message
from stream.schema_book import REMEMBERED, SchemaBook
from stream.schema_registry import SchemaRefused, SchemaRegistry
from telemetry.health import Health
from tests.schema_registry import Registry, serving

TOPIC, GROUP = "eventproc.tasks.py3.11", "group"
PLAIN = {"run_id": "r", "owner": "alice", "runtime": "py3.11", "hook": "h", "dispatched_at_ns": 5}


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_learned", "_ids", "_written"):
        monkeypatch.setattr(known, name, {})


def a_newer_task(default: str = "") -> Contract:
    """The task as a later release might write it: with one more field."""
    raw = json.loads(json.dumps(contracts()["task"].raw))
    raw["fields"].append({"name": f"later_{default}", "type": "string", "default": default})
    return contract_of("task", raw)


def written(writer: Contract) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, writer.parsed, PLAIN)
    return out.getvalue()


class Step:
    def __init__(self) -> None:
        self.read: list[dict[str, Any]] = []

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        rejected = []
        for message in batch:
            try:
                self.read.append(decode("task", message.value, message.headers))
            except InvalidMessage as error:
                rejected.append(Rejected(message, error.reason))
        return rejected


class Station:
    """A loop in a thread."""

    def __init__(self, broker: MemoryBroker, book: SchemaBook) -> None:
        self.step, self.health, self._stop = Step(), Health("test"), threading.Event()
        self._consumer = broker.consumer([TOPIC], GROUP)
        self._thread = threading.Thread(
            target=lambda: loop.run(
                self._consumer, self.step, dead_letters=broker.producer(), group=GROUP, health=self.health, stop=self._stop,
                poll_s=0.02, book=book, limits=loop.Limits(schema_look_s=0.05),
            )
        )  # fmt: skip
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    made = [Topic(TOPIC, "k", 1, 1000), Topic(DEAD_LETTERS, "o", 1, -1), Topic(SCHEMAS, "fingerprint", 1, -1)]
    broker.admin().ensure_topics(made, 1, 1024 * 1024)
    return broker


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_station_writes_is_published_once_under_its_fingerprint(broker: MemoryBroker) -> None:
    for _ in range(2):
        SchemaBook(broker.admin(), broker.producer()).publish([("task", TOPIC), ("dead_letter", DEAD_LETTERS)])

    found = {m.key: json.loads(m.value or b"") for m in broker.messages(SCHEMAS)}
    assert len(broker.messages(SCHEMAS)) == 2
    ours = [contracts()["task"], contracts()["dead_letter"]]
    assert found == {contract.fingerprint.hex().encode(): contract.raw for contract in ours}


def test_a_message_of_a_newer_release_waits_for_its_schema_and_is_read_then(broker: MemoryBroker) -> None:
    newer, producer = a_newer_task(), broker.producer()
    producer.send(TOPIC, SINGLE_OBJECT + newer.fingerprint + written(newer), key=b"k")
    station = Station(broker, SchemaBook(broker.admin(), producer, clock=Stepping(1.0)))
    try:
        until(lambda: not station.health.ready_answer()[1]["checks"].get("partitions", {"ok": True})["ok"])
        why = station.health.ready_answer()[1]["checks"]["partitions"]["why"]
        assert newer.fingerprint.hex() in why and "waiting for it" in why

        producer.send(SCHEMAS, json.dumps(newer.raw).encode(), key=newer.fingerprint.hex().encode())
        until(lambda: station.step.read)
    finally:
        station.end()
    assert station.step.read == [PLAIN]
    assert broker.messages(DEAD_LETTERS) == []


@pytest.mark.parametrize(
    "rubbish",
    [
        b"[" * 100_000, b"\xff", b"7", b'{"name": 1, "type": "record", "fields": []}',
        b'{"name": "x", "type": "record", "fields": [{"name": "a", "type": "x"}]}',
        b'{"name": "x", "type": "fixed", "logicalType": "decimal", "precision": 9, "size": 1%s}' % (b"0" * 400),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_passed_over(rubbish: bytes, broker: MemoryBroker) -> None:
    newer, producer = a_newer_task(), broker.producer()
    producer.send(SCHEMAS, rubbish, key=b"k")
    producer.send(SCHEMAS, json.dumps(newer.raw).encode(), key=newer.fingerprint.hex().encode())
    producer.send(TOPIC, SINGLE_OBJECT + newer.fingerprint + written(newer), key=b"k")
    station = Station(broker, SchemaBook(broker.admin(), producer))
    try:
        until(lambda: station.step.read)
    finally:
        station.end()
    assert station.step.read == [PLAIN]


class Stepping:
    """A clock that goes on by so many seconds each time it is read."""

    def __init__(self, step_s: float) -> None:
        self._now, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self._now += self._step_s
        return self._now


def test_a_message_whose_schema_never_comes_is_a_dead_letter_in_the_end(broker: MemoryBroker) -> None:
    newer, producer = a_newer_task("x"), broker.producer()
    producer.send(TOPIC, SINGLE_OBJECT + newer.fingerprint + written(newer), key=b"k")
    producer.send(TOPIC, encode("task", PLAIN), key=b"k")
    station = Station(broker, SchemaBook(broker.admin(), producer, wait_s=60, clock=Stepping(5.0)))
    try:
        until(lambda: station.step.read)
    finally:
        station.end()
    (letter,) = broker.messages(DEAD_LETTERS)
    assert f"unknown Avro schema fingerprint {newer.fingerprint.hex()}" in decode("dead_letter", letter.value)["reason"]


class Standing:
    """A clock that somebody sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def unknown(number: int, sent_ms: int = 0) -> Message:
    return Message(TOPIC, 0, 0, None, SINGLE_OBJECT + number.to_bytes(8, "big") + b"x", (), sent_ms)


@pytest.mark.parametrize(
    "sent_s", [0, time.time() - 86_400, time.time() + 86_400], ids=["never", "yesterday", "tomorrow"]
)
def test_the_wait_is_this_process_s_own_whatever_clock_the_message_was_sent_by(
    broker: MemoryBroker, sent_s: float
) -> None:
    clock = Standing()
    book = SchemaBook(broker.admin(), broker.producer(), wait_s=60, clock=clock)

    assert "waiting for it for 60 s more" in book.missing(unknown(1, int(sent_s * 1000)))
    clock.now += 59
    assert "waiting for it for 1 s more" in book.missing(unknown(1, int(sent_s * 1000)))
    clock.now += 1
    assert book.missing(unknown(1, int(sent_s * 1000))) == ""
    assert "waiting for it for 60 s more" in book.missing(unknown(2, int(sent_s * 1000)))


def test_what_stands_behind_a_message_that_waits_waits_beside_it(broker: MemoryBroker) -> None:
    clock, producer = Standing(), broker.producer()
    for number in range(20):
        producer.send(TOPIC, unknown(number).value, key=b"k")
    station = Station(broker, SchemaBook(broker.admin(), producer, wait_s=60, clock=clock))
    try:
        until(lambda: not station.health.ready_answer()[1]["checks"].get("partitions", {"ok": True})["ok"])
        assert broker.messages(DEAD_LETTERS) == []
        clock.now += 60
        until(lambda: len(broker.messages(DEAD_LETTERS)) == 20)
    finally:
        station.end()


@pytest.mark.parametrize("wait_s", [0, 60])
def test_what_was_unknown_for_long_and_is_published_now_makes_no_dead_letter(broker: MemoryBroker, wait_s: int) -> None:
    newer, producer, clock = a_newer_task("z"), broker.producer(), Standing()
    value = SINGLE_OBJECT + newer.fingerprint + written(newer)
    producer.send(TOPIC, value, key=b"k")
    station = Station(broker, SchemaBook(broker.admin(), producer, wait_s=wait_s, clock=clock))
    try:
        until(
            lambda: (
                wait_s == 0 or station.health.ready_answer()[1]["checks"].get("partitions", {"ok": True})["ok"] is False
            )
        )
        clock.now += wait_s
        until(lambda: broker.messages(DEAD_LETTERS))
        clock.now += 0.01
        producer.send(SCHEMAS, json.dumps(newer.raw).encode(), key=newer.fingerprint.hex().encode())
        producer.send(TOPIC, value, key=b"k")
        until(lambda: station.step.read)
    finally:
        station.end()
    assert len(broker.messages(DEAD_LETTERS)) == 1


def test_of_schemas_that_nobody_has_only_so_many_are_remembered(broker: MemoryBroker) -> None:
    clock = Standing()
    book = SchemaBook(broker.admin(), broker.producer(), wait_s=60, clock=clock)
    for number in range(REMEMBERED + 1):
        book.meet(unknown(number))
    clock.now += 60

    assert book.missing(unknown(REMEMBERED)) == ""
    assert "waiting for it for 60 s more" in book.missing(unknown(0)), "it is as good as new"


def test_something_in_the_topic_that_is_no_schema_does_no_harm(broker: MemoryBroker) -> None:
    newer, producer = a_newer_task("y"), broker.producer()
    for value in (b"not json", b"{}", b'{"name": "x", "type": "nonsense"}', b"[1]"):
        producer.send(SCHEMAS, value, key=b"k")
    producer.send(SCHEMAS, json.dumps(newer.raw).encode(), key=newer.fingerprint.hex().encode())
    message = Message(TOPIC, 0, 0, None, SINGLE_OBJECT + newer.fingerprint + written(newer), (), 0)

    assert SchemaBook(broker.admin(), producer).missing(message) == ""
    assert decode("task", message.value) == PLAIN


@pytest.fixture
def registry_url() -> Iterator[str]:
    with serving() as url:
        yield url


def framed(number: int, writer: Contract) -> Message:
    return Message(TOPIC, 0, 0, None, b"\0" + number.to_bytes(4, "big") + written(writer), (), int(time.time() * 1000))


def test_a_schema_registry_is_asked_once_for_an_id(broker: MemoryBroker, registry_url: str) -> None:
    newer = a_newer_task()
    Registry.schemas = {42: json.dumps(newer.raw)}
    book = SchemaBook(broker.admin(), broker.producer(), SchemaRegistry(registry_url))

    for _ in range(3):
        assert book.missing(framed(42, newer)) == ""
        assert decode("task", framed(42, newer).value) == PLAIN
    assert Registry.asked == ["/schemas/ids/42"]


def test_an_id_the_registry_does_not_have_is_waited_for(broker: MemoryBroker, registry_url: str) -> None:
    book = SchemaBook(broker.admin(), broker.producer(), SchemaRegistry(registry_url))

    assert "no Avro schema with id 9; waiting for it" in book.missing(framed(9, a_newer_task()))


def test_the_framing_without_a_registry_is_unreadable_at_once(broker: MemoryBroker) -> None:
    broker.producer().send(TOPIC, framed(9, a_newer_task()).value, key=b"k")
    station = Station(broker, SchemaBook(broker.admin(), broker.producer(), wait_s=60, clock=Standing()))
    try:
        until(lambda: broker.messages(DEAD_LETTERS))
    finally:
        station.end()
    (letter,) = broker.messages(DEAD_LETTERS)
    assert "is EVENTPROC_SCHEMA_REGISTRY_URL set" in decode("dead_letter", letter.value)["reason"]


def test_a_registry_that_is_away_or_broken_is_waited_for(broker: MemoryBroker, registry_url: str) -> None:
    Registry.broken = True
    with pytest.raises(TryLater, match=r"500 .*backend data store"):
        SchemaBook(broker.admin(), broker.producer(), SchemaRegistry(registry_url)).missing(framed(1, a_newer_task()))
    with pytest.raises(TryLater, match="schema registry"):
        nobody = SchemaRegistry("http://127.0.0.1:9")
        SchemaBook(broker.admin(), broker.producer(), nobody).missing(framed(1, a_newer_task()))


def test_with_a_registry_our_own_messages_are_written_in_its_framing(broker: MemoryBroker, registry_url: str) -> None:
    book = SchemaBook(broker.admin(), broker.producer(), SchemaRegistry(registry_url))
    book.publish([("task", TOPIC)])

    value = encode("task", PLAIN)

    assert value[:5] == b"\0\0\0\0\x01"
    assert json.loads(Registry.schemas[1])["name"] == "Task"
    assert decode("task", value) == PLAIN


def test_a_schema_the_registry_does_not_take_is_an_error_that_says_so(registry_url: str) -> None:
    with pytest.raises(SchemaRefused, match=r"incompatible-value/versions: 409 .*is incompatible"):
        SchemaRegistry(registry_url).register("incompatible", contracts()["task"].raw)
