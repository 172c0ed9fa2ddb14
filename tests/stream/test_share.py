"""More unreadable messages than the share allows: the partition waits, the others go on, nothing goes to the dead letters."""

import threading
import time
from collections.abc import Callable, Sequence

from schemas.topics import DEAD_LETTERS, Topic
from stream import loop
from stream.letters import Rejected
from stream.memory import MemoryBroker
from stream.messages import Message
from telemetry.health import Health

TOPIC, GROUP = "topic", "group"
LIMITS = loop.Limits(unreadable_share=0.5, unreadable_window=100, held_s=0.3)


class Step:
    """Rejects what says so, until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.handled: list[bytes] = []

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        bad = [m for m in batch if (m.value or b"").startswith(b"bad") and not self.mended]
        self.handled.extend(m.value or b"" for m in batch if m not in bad)
        return [Rejected(m, "no good") for m in bad]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_partition_full_of_unreadable_messages_is_held_until_somebody_has_seen_to_it() -> None:
    broker, step, health, stop = MemoryBroker(), Step(), Health("test"), threading.Event()
    broker.admin().ensure_topics([Topic(TOPIC, "key", 2, 1000), Topic(DEAD_LETTERS, "origin", 1, -1)], 1, 1024 * 1024)
    producer = broker.producer()
    keys = {0: b"", 1: b""}
    for number in range(50):  # a key for each partition
        producer.send(TOPIC, b"good", key=b"%d" % number)
    for message in broker.messages(TOPIC):
        keys[message.partition] = message.key or b""
    for number in range(300):
        producer.send(TOPIC, b"bad %d" % number, key=keys[0])
    consumer = broker.consumer([TOPIC], GROUP)
    thread = threading.Thread(
        target=lambda: loop.run(
            consumer,
            step,
            dead_letters=broker.producer(),
            group=GROUP,
            health=health,
            stop=stop,
            poll_s=0.02,
            limits=LIMITS,
        )
    )
    thread.start()
    try:
        until(lambda: not health.ready_answer()[1]["checks"].get("partitions", {"ok": True})["ok"])
        letters = len(broker.messages(DEAD_LETTERS))
        assert 0 < letters < 100
        assert "of the last 100 messages cannot be read" in health.ready_answer()[1]["checks"]["partitions"]["why"]
        assert health.live_answer()[0] == 200

        producer.send(TOPIC, b"good as well", key=keys[1])
        until(lambda: b"good as well" in step.handled)
        assert len(broker.messages(DEAD_LETTERS)) == letters

        step.mended = True
        until(lambda: step.handled[-1] == b"bad 299")
        until(lambda: health.ready_answer()[1]["checks"]["partitions"]["ok"])
        until(lambda: broker.commits[GROUP].get((TOPIC, 0), 0) == len(broker.logs[(TOPIC, 0)]))
    finally:
        stop.set()
        thread.join(10)
    assert len(broker.messages(DEAD_LETTERS)) == letters
    assert sorted(v for v in step.handled if v.startswith(b"bad")) == sorted(
        b"bad %d" % number for number in range(letters, 300)
    )


def test_a_few_bad_messages_among_good_ones_go_to_the_dead_letters_and_hold_nothing() -> None:
    broker, step, health, stop = MemoryBroker(), Step(), Health("test"), threading.Event()
    broker.admin().ensure_topics([Topic(TOPIC, "key", 1, 1000), Topic(DEAD_LETTERS, "origin", 1, -1)], 1, 1024 * 1024)
    producer = broker.producer()
    for number in range(300):
        producer.send(TOPIC, b"%s %d" % (b"bad" if number % 3 == 0 else b"good", number), key=b"k")
    consumer = broker.consumer([TOPIC], GROUP)
    thread = threading.Thread(
        target=lambda: loop.run(
            consumer,
            step,
            dead_letters=broker.producer(),
            group=GROUP,
            health=health,
            stop=stop,
            poll_s=0.02,
            limits=LIMITS,
        )
    )
    thread.start()
    try:
        until(lambda: broker.commits[GROUP].get((TOPIC, 0), 0) == 300)
    finally:
        stop.set()
        thread.join(10)
    assert len(broker.messages(DEAD_LETTERS)) == 100
