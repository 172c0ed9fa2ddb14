"""A message on which processes stop is found and put aside; its neighbours are handled all the same."""

import threading
from collections.abc import Sequence

import pytest

from schemas.encoding import decode
from schemas.errors import TryLater
from schemas.records import DeadLetter, dead_letter_from
from schemas.topics import DEAD_LETTERS, Topic
from stream import loop
from stream.letters import Rejected
from stream.memory import MemoryBroker
from stream.messages import Message
from stream.poison import DIED_AT_MOST
from telemetry.health import Health

TOPIC, GROUP = "topic", "group"


class Vanished(BaseException):
    """As kill -9: nothing of ours runs any more."""


def a_broker(count: int) -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics([Topic(TOPIC, "key", 1, 1000), Topic(DEAD_LETTERS, "origin", 1, -1)], 1, 1024 * 1024)
    producer = broker.producer()
    for number in range(count):
        producer.send(TOPIC, b"%d" % number, key=b"k")
    return broker


class Step:
    """Notes what it handled; stops its process on the message `bad`."""

    def __init__(self, broker: MemoryBroker, bad: bytes, error: BaseException, last: bytes) -> None:
        self.handled: list[bytes | None] = []
        self.stop = threading.Event()
        self._broker, self._bad, self._error, self._last = broker, bad, error, last

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        values = [message.value for message in batch]
        if self._bad in values:
            raise self._error
        self.handled.extend(values)
        if self._last in values:
            self.stop.set()
        return []


def a_process(broker: MemoryBroker, step: Step) -> None:
    """One process of the group, from its start to its end."""
    consumer = broker.consumer([TOPIC], GROUP)
    try:
        loop.run(
            consumer,
            step,
            dead_letters=broker.producer(),
            group=GROUP,
            health=Health("test"),
            stop=step.stop,
            poll_s=0.05,
        )
    finally:
        consumer.close()


def letters(broker: MemoryBroker) -> list[DeadLetter]:
    return [dead_letter_from(decode("dead_letter", message.value)) for message in broker.messages(DEAD_LETTERS)]


def test_a_message_on_which_a_process_stopped_twice_is_a_dead_letter_and_all_others_are_handled_once() -> None:
    broker = a_broker(7)
    step = Step(broker, b"3", ZeroDivisionError("division by zero"), b"6")

    stops = 0
    while not step.stop.is_set():
        try:
            a_process(broker, step)
        except ZeroDivisionError:
            stops += 1

    assert stops == 3  # once in a batch, twice alone
    assert step.handled == [b"0", b"1", b"2", b"4", b"5", b"6"]
    (letter,) = letters(broker)
    assert (letter.value, letter.offset) == (b"3", 3)
    assert "2 times by an error (ZeroDivisionError: division by zero)" in letter.reason
    assert broker.commits[GROUP] == {(TOPIC, 0): 7}


def test_a_message_on_which_processes_vanish_without_a_word_is_put_aside_later() -> None:
    broker = a_broker(3)
    step = Step(broker, b"1", Vanished(), b"2")

    deaths = 0
    while not step.stop.is_set():
        try:
            a_process(broker, step)
        except Vanished:
            deaths += 1

    assert deaths == 1 + DIED_AT_MOST
    assert step.handled == [b"0", b"2"]
    (letter,) = letters(broker)
    assert letter.value == b"1" and f"{DIED_AT_MOST} times without a word" in letter.reason


def test_what_stands_behind_a_suspect_waits_for_it_so_that_no_offset_is_committed_before_its_time() -> None:
    broker = a_broker(2)
    with pytest.raises(Vanished):
        a_process(broker, Step(broker, b"1", Vanished(), b"none"))
    for number in (2, 3):
        broker.producer().send(TOPIC, b"%d" % number, key=b"k")
    step = Step(broker, b"none", Vanished(), b"3")

    a_process(broker, step)

    assert step.handled == [b"0", b"1", b"2", b"3"]
    assert broker.commits[GROUP] == {(TOPIC, 0): 4}


def test_one_stop_alone_puts_nothing_aside() -> None:
    broker = a_broker(1)
    step = Step(broker, b"0", ZeroDivisionError(), b"0")
    with pytest.raises(ZeroDivisionError):
        a_process(broker, step)
    well = Step(broker, b"none", ZeroDivisionError(), b"0")

    a_process(broker, well)

    assert well.handled == [b"0"] and letters(broker) == []
    assert broker.notes[GROUP] == {}


def test_waiting_for_a_dependency_and_ending_in_good_order_are_no_stops() -> None:
    broker = a_broker(1)
    for _ in range(2 * DIED_AT_MOST):
        step = Step(broker, b"0", TryLater("the ledger is away"), b"0")
        threading.Timer(0.05, step.stop.set).start()
        a_process(broker, step)
    well = Step(broker, b"none", ZeroDivisionError(), b"0")

    a_process(broker, well)

    assert well.handled == [b"0"] and letters(broker) == []
