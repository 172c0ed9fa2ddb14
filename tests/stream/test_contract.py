"""What stations rely on, held against the broker in memory and a real Kafka alike."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from schemas.errors import InvalidMessage, TryLater
from schemas.topics import Topic
from stream.broker import Consumer
from stream.messages import Message


def polled(consumer: Consumer, count: int, seconds: float = 30.0) -> list[Message]:
    """Polls until count messages came; fails when they do not."""
    found: list[Message] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages came"
        found.extend(consumer.poll(0.2, 100))
    return found


def nothing_comes(consumer: Consumer) -> bool:
    return all(not consumer.poll(0.05, 100) for _ in range(4))


def until(true: Callable[[], object], *consumers: Consumer) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        for consumer in consumers:
            assert consumer.poll(0.05, 100) == []


def test_a_message_comes_as_it_was_sent(belt: Any) -> None:
    producer = belt.broker.producer()
    producer.send(belt.topic, b"value", key=b"key", headers=[("a", b"1"), ("a", b"2")])
    producer.flush(10)

    (message,) = polled(belt.broker.consumer([belt.topic], belt.group), 1)

    assert (message.topic, message.key, message.value, message.headers) == (
        belt.topic,
        b"key",
        b"value",
        (("a", b"1"), ("a", b"2")),
    )
    assert message.timestamp_ms > 0


def test_a_new_group_begins_at_the_beginning(belt: Any) -> None:
    producer = belt.broker.producer()
    for number in range(5):
        producer.send(belt.topic, b"%d" % number, key=b"k")
    producer.flush(10)

    assert [m.value for m in polled(belt.broker.consumer([belt.topic], belt.group), 5)] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]


def test_what_was_not_committed_comes_again_to_the_next_member(belt: Any) -> None:
    producer = belt.broker.producer()
    for number in range(4):
        producer.send(belt.topic, b"%d" % number, key=b"k")
    producer.flush(10)
    first = belt.broker.consumer([belt.topic], belt.group)
    messages = polled(first, 4)
    first.commit(messages[:2])
    first.close()

    second = belt.again().consumer([belt.topic], belt.group)

    assert [m.value for m in polled(second, 2)] == [b"2", b"3"]


def test_no_more_come_at_a_time_than_asked_for_and_none_is_skipped(belt: Any) -> None:
    producer = belt.broker.producer()
    for number in range(7):
        producer.send(belt.topic, b"%d" % number, key=b"k")
    producer.flush(10)
    consumer = belt.broker.consumer([belt.topic], belt.group)
    sizes: list[int] = []
    values: list[bytes | None] = []
    while len(values) < 7:
        batch = consumer.poll(5, 2)
        sizes.append(len(batch))
        values.extend(m.value for m in batch)

    assert max(sizes) == 2
    assert values == [b"%d" % number for number in range(7)]


def test_a_paused_member_takes_nothing_and_goes_on_where_it_was(belt: Any) -> None:
    producer = belt.broker.producer()
    consumer = belt.broker.consumer([belt.topic], belt.group)
    until(lambda: len(consumer.assignment()) == 3, consumer)
    consumer.pause_all()
    producer.send(belt.topic, b"late", key=b"k")
    producer.flush(10)

    assert nothing_comes(consumer)
    assert len(consumer.assignment()) == 3
    consumer.resume_all()
    assert [m.value for m in polled(consumer, 1)] == [b"late"]


def test_two_members_share_the_partitions_and_one_that_leaves_gives_its_own_back(belt: Any) -> None:
    first = belt.broker.consumer([belt.topic], belt.group)
    until(lambda: len(first.assignment()) == 3, first)
    second = belt.again().consumer([belt.topic], belt.group)

    until(lambda: len(first.assignment()) + len(second.assignment()) == 3 and second.assignment(), first, second)
    assert not first.assignment() & second.assignment()
    second.close()
    until(lambda: len(first.assignment()) == 3, first)


def test_members_that_look_in_without_waiting_come_to_share_the_partitions(belt: Any) -> None:
    """As executors without a free slot do: what a join brings comes between two polls, never during one."""
    first = belt.broker.consumer([belt.topic], belt.group)
    second = belt.again().consumer([belt.topic], belt.group)

    def both_look_in() -> bool:
        for consumer in (first, second):
            assert consumer.poll(0, 1) == []
        time.sleep(0.1)
        return bool(first.assignment() and second.assignment())

    until(lambda: both_look_in() and len(first.assignment() | second.assignment()) == 3)
    assert not first.assignment() & second.assignment()


def test_a_paused_member_takes_nothing_from_partitions_that_come_to_it(belt: Any) -> None:
    first = belt.broker.consumer([belt.topic], belt.group)
    until(lambda: len(first.assignment()) == 3, first)
    second = belt.again().consumer([belt.topic], belt.group)
    until(lambda: len(first.assignment()) + len(second.assignment()) == 3 and second.assignment(), first, second)
    second.pause_all()
    first.close()
    producer = belt.broker.producer()
    for number in range(30):
        producer.send(belt.topic, b"v", key=b"%d" % number)
    producer.flush(10)

    until(lambda: len(second.assignment()) == 3, second)
    assert nothing_comes(second)
    second.resume_all()
    assert len(polled(second, 30)) == 30


def test_a_commit_of_what_has_gone_to_another_member_does_no_harm(belt: Any) -> None:
    producer = belt.broker.producer()
    producer.send(belt.topic, b"v", key=b"k")
    producer.flush(10)
    first = belt.broker.consumer([belt.topic], belt.group)
    messages = polled(first, 1)
    elsewhere = Message(belt.topic, 99, 5, None, b"", (), 0)

    first.commit([*messages, elsewhere])

    admin = belt.broker.admin()
    assert dict(admin.committed(belt.group, belt.topic)) == {messages[0].partition: 1}
    assert admin.lag(belt.group, belt.topic) == 0


def test_lag_is_what_the_group_has_not_committed(belt: Any) -> None:
    producer, admin = belt.broker.producer(), belt.broker.admin()
    for number in range(10):
        producer.send(belt.topic, b"v", key=b"%d" % number)
    producer.flush(10)

    assert sum(admin.end_offsets(belt.topic).values()) == 10
    assert admin.lag(belt.group, belt.topic) == 10


def test_a_message_that_is_too_large_is_refused_with_its_size_and_the_limit(belt: Any) -> None:
    with pytest.raises(InvalidMessage, match="3000000 bytes; at most 2097152"):
        belt.broker.producer().send(belt.topic, bytes(3_000_000))


def test_a_message_as_large_as_allowed_arrives(belt: Any) -> None:
    producer = belt.broker.producer()
    producer.send(belt.topic, bytes(2 * 1024 * 1024), key=b"k", headers=[("h", b"x" * 1000)])
    producer.flush(20)

    (message,) = polled(belt.broker.consumer([belt.topic], belt.group), 1)

    assert message.value is not None and len(message.value) == 2 * 1024 * 1024


def test_topics_that_are_there_are_left_alone(belt: Any) -> None:
    admin = belt.broker.admin()
    admin.ensure_topics([Topic(belt.topic, "key", 7, 1000)], 1, 1024 * 1024)

    assert len(admin.end_offsets(belt.topic)) == 3
    admin.ping()


def test_a_poll_comes_back_as_soon_as_there_is_a_message(belt: Any) -> None:
    consumer, producer = belt.broker.consumer([belt.topic], belt.group), belt.broker.producer()
    until(lambda: len(consumer.assignment()) == 3, consumer)
    found: list[Message] = []
    waiting = threading.Thread(target=lambda: found.extend(consumer.poll(60, 10)))
    waiting.start()

    producer.send(belt.topic, b"now", key=b"k")
    producer.flush(10)
    waiting.join(30)

    assert [m.value for m in found] == [b"now"]


def test_each_thread_flushes_its_own_messages(belt: Any) -> None:
    producer = belt.broker.producer()

    def send(number: int) -> None:
        for _ in range(20):
            producer.send(belt.topic, b"%d" % number, key=b"%d" % number)
            producer.flush(20)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(polled(belt.broker.consumer([belt.topic], belt.group), 80)) == 80


def test_a_held_partition_gives_nothing_while_the_others_go_on_and_comes_again_from_that_message(belt: Any) -> None:
    producer, consumer = belt.broker.producer(), belt.broker.consumer([belt.topic], belt.group)
    for number in range(60):
        producer.send(belt.topic, b"%d" % number, key=b"%d" % number)
    producer.flush(10)
    messages = polled(consumer, 60)
    held = next(m for m in messages if sum(n.partition == m.partition for n in messages) > 1)
    consumer.hold(held)

    producer.send(belt.topic, b"more", key=held.key)
    others = next(m for m in messages if m.partition != held.partition)
    producer.send(belt.topic, b"other", key=others.key)
    producer.flush(10)
    assert [m.value for m in polled(consumer, 1)] == [b"other"]
    assert nothing_comes(consumer)
    consumer.pause_all()
    consumer.resume_all()
    assert nothing_comes(consumer)

    consumer.release((held.topic, held.partition))
    again = [m for m in messages if m.partition == held.partition and m.offset >= held.offset]
    assert [m.value for m in polled(consumer, len(again) + 1)] == [*(m.value for m in again), b"more"]


def test_a_note_stays_with_the_offset_for_the_next_member_until_a_commit_clears_it(belt: Any) -> None:
    producer, first = belt.broker.producer(), belt.broker.consumer([belt.topic], belt.group)
    for number in range(2):
        producer.send(belt.topic, b"%d" % number, key=b"k")
    producer.flush(10)
    one, two = polled(first, 2)
    place = (one.topic, one.partition)
    assert first.note(place) == ""
    first.mark(one, "stopped here")
    first.close()

    second = belt.again().consumer([belt.topic], belt.group)
    again = polled(second, 2)

    assert [m.value for m in again] == [b"0", b"1"]
    assert second.note(place) == "stopped here"
    second.commit([again[0]])
    assert second.note(place) == ""
    assert dict(belt.broker.admin().committed(belt.group, belt.topic)) == {one.partition: two.offset}


def test_a_new_group_may_begin_at_the_end_and_one_that_has_begun_stays_where_it_is(belt: Any) -> None:
    producer, admin = belt.broker.producer(), belt.broker.admin()
    producer.send(belt.topic, b"before", key=b"k")
    producer.flush(10)

    admin.begin_at_end(belt.group, [belt.topic, "no-such-topic"])
    producer.send(belt.topic, b"after", key=b"k")
    producer.flush(10)
    admin.begin_at_end(belt.group, [belt.topic])

    assert [m.value for m in polled(belt.broker.consumer([belt.topic], belt.group), 1)] == [b"after"]


def test_a_topic_is_read_whole_without_a_group(belt: Any) -> None:
    producer, admin = belt.broker.producer(), belt.broker.admin()
    assert list(admin.read(belt.topic)) == []
    for number in range(20):
        producer.send(belt.topic, b"%d" % number, key=b"%d" % number)
    producer.flush(10)

    assert sorted(int(m.value or b"") for m in admin.read(belt.topic)) == list(range(20))
    assert dict(admin.committed(belt.group, belt.topic)) == {}


def test_a_topic_is_read_from_a_time_or_an_offset_on(belt: Any) -> None:
    producer, admin = belt.broker.producer(), belt.broker.admin()

    def send(*values: bytes) -> None:
        for value in values:
            producer.send(belt.topic, value, key=b"one partition")
        producer.flush(10)

    send(b"0", b"1")
    (_, last) = admin.read(belt.topic)
    while time.time_ns() // 1_000_000 <= last.timestamp_ms:
        pass
    send(b"2")
    new = next(m for m in admin.read(belt.topic) if m.value == b"2")

    assert [m.value for m in admin.read(belt.topic, since_ms=new.timestamp_ms)] == [b"2"]
    assert list(admin.read(belt.topic, since_ms=new.timestamp_ms + 3_600_000)) == []
    assert [m.value for m in admin.read(belt.topic, start={last.partition: last.offset})] == [b"1", b"2"]
    assert list(admin.read(belt.topic, start={last.partition: 7})) == []


def test_a_topic_is_told_how_long_to_keep(belt: Any) -> None:
    admin = belt.broker.admin()

    admin.keep(belt.topic, 86_400_000)
    admin.keep(belt.topic, 86_400_000)

    assert belt.retention_ms(belt.topic) == 86_400_000


def test_a_topic_that_is_not_there_yet_cannot_be_told(belt: Any) -> None:
    with pytest.raises(TryLater):
        belt.broker.admin().keep("no-such-topic", 1000)
