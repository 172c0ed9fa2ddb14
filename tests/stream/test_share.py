"""More unreadable messages than the share allows: the partition waits, the others go on, nothing goes to the dead letters."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from schemas.topics import DEAD_LETTERS, Topic
from stream import loop
from stream.letters import Rejected, read_letters
from stream.messages import Message
from stream.schema_book import SchemaBook
from telemetry.health import Health
from tests.stream.conftest import MAX_BYTES, Belt

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


class Station:
    """A loop in a thread on the belt's topic."""

    def __init__(self, belt: Belt) -> None:
        self.belt, self.step, self.health = belt, Step(), Health("test")
        self.admin, self._producer = belt.broker.admin(), belt.broker.producer()
        self.admin.ensure_topics([Topic(DEAD_LETTERS, "origin", 1, -1)], 1, MAX_BYTES)
        self._book = SchemaBook(self.admin, self._producer, wait_s=0.0)
        self.send(*((b"good", b"%d" % number) for number in range(50)))
        self.keys = {message.partition: message.key or b"" for message in self.admin.read(belt.topic)}
        assert len(self.keys) == 3, "a key for each partition"

    def send(self, *messages: tuple[bytes, bytes]) -> None:
        for value, key in messages:
            self._producer.send(self.belt.topic, value, key=key)
        self._producer.flush(30)

    def letters(self) -> int:
        """How many messages of the topic are dead letters."""
        return sum(kept.letter.topic == self.belt.topic for kept in read_letters(self.admin, self._book))

    def held(self) -> bool:
        return not self.health.ready_answer()[1]["checks"].get("partitions", {"ok": True})["ok"]

    def why(self) -> str:
        """Why it is held; between two holds it is not."""
        return str(self.health.ready_answer()[1]["checks"].get("partitions", {}).get("why", ""))

    def behind(self) -> int:
        return self.admin.lag(self.belt.group, self.belt.topic)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        stop, consumer = threading.Event(), self.belt.broker.consumer([self.belt.topic], self.belt.group)
        thread = threading.Thread(
            target=lambda: loop.run(
                consumer, self.step, dead_letters=self.belt.broker.producer(), group=self.belt.group, health=self.health,
                stop=stop, poll_s=0.02, limits=LIMITS,
            )
        )  # fmt: skip
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def station(belt: Belt) -> Station:
    return Station(belt)


def test_a_partition_full_of_unreadable_messages_is_held_until_somebody_has_seen_to_it(station: Station) -> None:
    station.send(*((b"bad %d" % number, station.keys[0]) for number in range(300)))
    with station.at_work():
        until(station.held)
        letters = station.letters()
        assert 0 < letters < 100
        until(lambda: "of the last 100 messages cannot be read" in station.why())
        assert station.health.live_answer()[0] == 200

        station.send((b"good as well", station.keys[1]))
        until(lambda: b"good as well" in station.step.handled)
        assert station.letters() == letters

        station.step.mended = True
        until(lambda: station.step.handled[-1] == b"bad 299")
        until(lambda: not station.held())
        until(lambda: station.behind() == 0)

    assert station.letters() == letters
    assert sorted(v for v in station.step.handled if v.startswith(b"bad")) == sorted(
        b"bad %d" % number for number in range(letters, 300)
    )


def test_a_few_bad_messages_among_good_ones_go_to_the_dead_letters_and_hold_nothing(station: Station) -> None:
    station.send(
        *((b"%s %d" % (b"bad" if number % 3 == 0 else b"good", number), station.keys[0]) for number in range(300))
    )
    with station.at_work():
        until(lambda: station.behind() == 0)

    assert station.letters() == 100
