"""What the loop makes of errors: dead letters, the same batch again, a stop."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from schemas.encoding import decode
from schemas.errors import TryLater
from schemas.records import dead_letter_from
from schemas.topics import DEAD_LETTERS, Topic
from stream import loop
from stream.letters import Rejected, why_not_again
from stream.memory import MemoryBroker
from stream.messages import BATCH, Message
from telemetry.health import Health

TOPIC = "topic"
GROUP = "group"


class Work:
    """A step that does what the test says, and stops the loop when it has seen enough."""

    def __init__(
        self, stop: threading.Event, until: int, work: Callable[[Sequence[Message]], Sequence[Rejected]]
    ) -> None:
        self.batches: list[list[bytes | None]] = []
        self._stop = stop
        self._until = until
        self._work = work

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        self.batches.append([message.value for message in batch])
        if sum(len(values) for values in self.batches) >= self._until:
            self._stop.set()
        return self._work(batch)


def a_broker(*values: bytes) -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics([Topic(TOPIC, "key", 1, 1000), Topic(DEAD_LETTERS, "origin", 1, -1)], 1, 1024 * 1024)
    producer = broker.producer()
    for value in values:
        producer.send(TOPIC, value, key=b"k", headers=[("h", b"x")])
    producer.flush(1)
    return broker


def run(broker: MemoryBroker, work: Work, stop: threading.Event, health: Health | None = None, **more: Any) -> None:
    consumer = broker.consumer([TOPIC], GROUP)
    loop.run(
        consumer,
        work,
        dead_letters=broker.producer(),
        group=GROUP,
        health=health or Health("test"),
        stop=stop,
        poll_s=0.05,
        **more,
    )
    consumer.close()


def committed(broker: MemoryBroker) -> int:
    return broker.commits[GROUP].get((TOPIC, 0), 0)


def test_a_batch_that_was_handled_is_committed() -> None:
    broker, stop = a_broker(b"a", b"b"), threading.Event()
    work = Work(stop, 2, lambda batch: [])

    run(broker, work, stop)

    assert work.batches == [[b"a", b"b"]]
    assert committed(broker) == 2


def test_what_was_rejected_is_a_dead_letter_with_its_bytes_origin_and_reason_and_the_rest_goes_on() -> None:
    broker, stop = a_broker(b"good", b"bad", b"good"), threading.Event()
    work = Work(stop, 3, lambda batch: [Rejected(m, "no good") for m in batch if m.value == b"bad"])

    run(broker, work, stop)

    (message,) = broker.messages(DEAD_LETTERS)
    letter = dead_letter_from(decode("dead_letter", message.value))
    assert (letter.topic, letter.partition, letter.offset, letter.key, letter.value) == (TOPIC, 0, 1, b"k", b"bad")
    assert (letter.headers, letter.group, letter.reason) == ((("h", b"x"),), GROUP, "no good")
    assert committed(broker) == 3


def test_try_later_gives_the_same_batch_again_and_commits_it_once_it_is_done() -> None:
    broker, stop = a_broker(b"a"), threading.Event()
    health = Health("test")
    seen: list[tuple[int, Any]] = []

    def third_time_lucky(batch: Sequence[Message]) -> Sequence[Rejected]:
        seen.append((committed(broker), health.ready_answer()[1]["checks"].get("work")))
        if len(seen) < 3:
            stop.clear()
            raise TryLater("the ledger is away")
        return []

    work = Work(stop, 3, third_time_lucky)
    run(broker, work, stop, health)

    assert work.batches == [[b"a"]] * 3
    assert [offset for offset, _ in seen] == [0, 0, 0]
    assert seen[1][1] == {"ok": False, "why": "the ledger is away"}
    assert committed(broker) == 1


def test_any_other_error_stops_the_loop_and_commits_nothing() -> None:
    broker, stop = a_broker(b"a"), threading.Event()

    def breaks(batch: Sequence[Message]) -> Sequence[Rejected]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(broker, Work(stop, 1, breaks), stop)

    assert committed(broker) == 0


def test_nothing_is_committed_while_the_dead_letters_are_not_acknowledged() -> None:
    broker, stop = a_broker(b"bad"), threading.Event()
    offsets: list[int] = []

    def rejects_while_the_broker_goes_away(batch: Sequence[Message]) -> Sequence[Rejected]:
        offsets.append(committed(broker))
        if len(offsets) == 1:
            broker.away = True
            threading.Timer(0.3, lambda: setattr(broker, "away", False)).start()
        if broker.away:
            stop.clear()
        return [Rejected(m, "no good") for m in batch]

    run(broker, Work(stop, 2, rejects_while_the_broker_goes_away), stop)

    assert len(offsets) >= 2 and not any(offsets)
    assert len(broker.messages(DEAD_LETTERS)) == 1
    assert committed(broker) == 1


def test_a_broker_that_is_away_is_waited_for_and_shows_in_readiness_only() -> None:
    broker, stop = a_broker(b"a"), threading.Event()
    health = Health("test")
    consumer = broker.consumer([TOPIC], GROUP)
    broker.away = True
    told: list[int] = []

    def back() -> None:
        told.append(health.ready_answer()[0])
        told.append(health.live_answer()[0])
        broker.away = False

    threading.Timer(0.3, back).start()
    loop.run(
        consumer,
        Work(stop, 1, lambda batch: []),
        dead_letters=broker.producer(),
        group=GROUP,
        health=health,
        stop=stop,
        poll_s=0.05,
    )

    assert told == [503, 200]
    assert committed(broker) == 1


def test_no_more_is_taken_than_there_is_room_for() -> None:
    broker, stop = a_broker(*[b"%d" % n for n in range(5)]), threading.Event()
    room = [0, 2, 0, 1, 5]
    waited: list[float] = []
    work = Work(stop, 5, lambda batch: [])

    run(broker, work, stop, room=lambda: room.pop(0) if room else 5, wait_for_room=waited.append)

    assert work.batches == [[b"0", b"1"], [b"2"], [b"3", b"4"]]
    assert len(waited) == 2


def test_a_dependency_is_waited_for_at_the_start() -> None:
    tries: list[int] = []
    health = Health("test")

    def third_time_lucky() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise TryLater("not yet")

    loop.until_ready(third_time_lucky, health, "ledger", threading.Event())

    assert len(tries) == 3
    assert health.ready_answer()[1]["checks"]["ledger"] == {"ok": True, "why": ""}


def a_batch_in_place_of(broker: MemoryBroker, offset: int, **changed: Any) -> None:
    """The broker's client could not read what stands there."""
    kept = broker.logs[(TOPIC, 0)]
    kept[offset] = dataclasses.replace(kept[offset], key=None, value=b"the batch", headers=(), **changed)


def test_a_batch_that_cannot_be_unpacked_is_a_dead_letter_that_the_step_never_sees() -> None:
    broker, stop = a_broker(b"a", b"b", b"c"), threading.Event()
    a_batch_in_place_of(broker, 1, unreadable=f"{BATCH}: why")
    work = Work(stop, 2, lambda batch: [])

    run(broker, work, stop)

    assert work.batches == [[b"a", b"c"]]
    (message,) = broker.messages(DEAD_LETTERS)
    letter = dead_letter_from(decode("dead_letter", message.value))
    assert (letter.offset, letter.value, letter.reason) == (1, b"the batch", f"{BATCH}: why")
    assert "sends them again" in why_not_again(letter)
    assert committed(broker) == 3


def test_a_batch_that_is_damaged_holds_its_partition_until_it_is_whole() -> None:
    broker, stop, health = a_broker(b"a", b"b", b"c"), threading.Event(), Health("test")
    whole = broker.logs[(TOPIC, 0)][1]
    a_batch_in_place_of(broker, 1, unreadable="its checksum is wrong", damaged=True)
    held: list[str] = []

    def another_replica_leads(batch: Sequence[Message]) -> Sequence[Rejected]:
        if broker.logs[(TOPIC, 0)][1] is not whole:
            threading.Thread(target=after_a_look).start()
        return []

    def after_a_look() -> None:
        while not (why := health.ready_answer()[1]["checks"].get("partitions", {}).get("why", "")):
            stop.wait(0.01)
        held.append(why)
        broker.logs[(TOPIC, 0)][1] = whole

    work = Work(stop, 3, another_replica_leads)
    run(broker, work, stop, health, limits=loop.Limits(held_s=0.05))

    assert work.batches == [[b"a"], [b"b", b"c"]]
    assert held == [f"{TOPIC}/0 at 1: its checksum is wrong"]
    assert broker.messages(DEAD_LETTERS) == [] and committed(broker) == 3
