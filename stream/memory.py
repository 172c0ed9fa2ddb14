"""A broker in memory that behaves like the real one as far as stations can see; for tests, ours and yours."""

from __future__ import annotations

import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from schemas.errors import InvalidMessage, TryLater
from schemas.topics import Topic
from stream.broker import Admin, Consumer, Headers, Producer
from stream.messages import Message, Place
from stream.sizes import value_limit


class MemoryBroker:
    """A Broker. away: while True, everything raises TryLater, as if the broker could not be reached."""

    def __init__(self, max_message_bytes: int = 8 * 1024 * 1024) -> None:
        self.away = False
        self.max_message_bytes = max_message_bytes
        self.changed = threading.Condition(threading.RLock())
        self.logs: dict[Place, list[Message]] = {}
        self.partitions: dict[str, int] = {}
        self.retention_ms: dict[str, int] = {}  # told, never acted on
        self.commits: dict[str, dict[Place, int]] = defaultdict(dict)
        self.notes: dict[str, dict[Place, str]] = defaultdict(dict)
        self.members: dict[str, list[MemoryMember]] = defaultdict(list)

    def producer(self) -> Producer:
        return MemorySender(self)

    def consumer(self, topics: Sequence[str], group: str, *, instance: str | None = None) -> Consumer:
        return MemoryMember(self, tuple(topics), group)

    def admin(self) -> Admin:
        return MemoryDesk(self)

    def close(self) -> None:
        """Nothing to let go of."""

    def messages(self, topic: str) -> list[Message]:
        """All that a topic holds, by partition and offset; for tests."""
        with self.changed:
            return [m for place, kept in sorted(self.logs.items()) if place[0] == topic for m in kept]

    def answer(self) -> None:
        """Raises TryLater while the broker is away."""
        if self.away:
            raise TryLater("memory broker: away")

    def append(
        self, topic: str, value: bytes | None, key: bytes | None, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """A message arrives; call with the lock held. Raises TryLater when there is no such topic."""
        count = self.count(topic)
        partition = zlib.crc32(key) % count if key is not None else len(self.messages(topic)) % count
        kept = self.logs.setdefault((topic, partition), [])
        kept.append(Message(topic, partition, len(kept), key, value, headers, time.time_ns() // 1_000_000))
        self.changed.notify_all()

    def count(self, topic: str) -> int:
        """How many partitions the topic has. Raises TryLater when there is no such topic."""
        if topic not in self.partitions:
            raise TryLater(f"memory broker: there is no topic {topic}")
        return self.partitions[topic]

    def rebalance(self, group: str) -> None:
        """Deals the partitions out anew, each member keeping what it can (sticky); call with the lock held."""
        members = self.members[group]
        for member in members:
            member.lose(member.owned - set(member.wanted()))
        wanted = sorted({place for member in members for place in member.wanted()})
        for place in wanted:
            owners = [member for member in members if place in member.owned]
            able = sorted((m for m in members if place in m.wanted()), key=lambda m: len(m.owned))
            if not owners:
                able[0].take(place)
            elif len(owners[0].owned) > len(able[0].owned) + 1:
                owners[0].lose({place})
                able[0].take(place)
        self.changed.notify_all()


class MemorySender:
    """A Producer."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._sent = threading.local()

    def send(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> None:
        broker = self._broker
        most = value_limit(topic, broker.max_message_bytes)
        if value is not None and len(value) > most:
            raise InvalidMessage(f"a message for {topic} has {len(value)} bytes; at most {most} are allowed", value)
        with broker.changed:
            broker.answer()
            broker.append(topic, value, key, tuple(headers))
        self._sent.some = True

    def flush(self, timeout_s: float) -> None:
        some, self._sent.some = getattr(self._sent, "some", False), False
        if some:
            self._broker.answer()

    def close(self) -> None:
        """All that was sent has arrived."""


class MemoryMember:
    """A Consumer."""

    def __init__(self, broker: MemoryBroker, topics: tuple[str, ...], group: str) -> None:
        self._broker = broker
        self._topics = topics
        self._group = group
        self._positions: dict[Place, int] = {}
        self._begun: dict[Place, int] = {}  # where the partition stood when it came here
        self._paused = False
        self._held: set[Place] = set()
        self._closed = False
        self.owned: set[Place] = set()
        with broker.changed:
            broker.members[group].append(self)
            broker.rebalance(group)

    def wanted(self) -> list[Place]:
        """The partitions of its topics."""
        return [(topic, n) for topic in self._topics for n in range(self._broker.partitions.get(topic, 0))]

    def take(self, place: Place) -> None:
        """A partition comes to this member: it goes on where the group has committed."""
        self.owned.add(place)
        self._positions[place] = self._begun[place] = self._broker.commits[self._group].get(place, 0)

    def lose(self, places: set[Place]) -> None:
        """Partitions go to others."""
        self.owned -= places
        self._held -= places

    def poll(self, timeout_s: float, max_records: int) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        with self._broker.changed:
            while True:
                self._broker.answer()
                if set(self.wanted()) - {place for m in self._broker.members[self._group] for place in m.owned}:
                    self._broker.rebalance(self._group)
                found = [] if self._paused else self._next(max_records)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._broker.changed.wait(left)

    def _next(self, max_records: int) -> list[Message]:
        found: list[Message] = []
        for place in sorted(self.owned - self._held):
            at = self._positions[place]
            new = self._broker.logs.get(place, [])[at : at + max_records - len(found)]
            self._positions[place] = at + len(new)
            found.extend(new)
            if len(found) >= max_records:
                break
        return found

    def commit(self, upto: Sequence[Message]) -> None:
        with self._broker.changed:
            self._broker.answer()
            done = self._broker.commits[self._group]
            for message in upto:
                place = (message.topic, message.partition)
                if place in self.owned and self._begun[place] <= message.offset < self._positions[place]:
                    done[place] = max(done.get(place, 0), message.offset + 1)
                    self._broker.notes[self._group].pop(place, None)

    def pause_all(self) -> None:
        self._paused = True

    def resume_all(self) -> None:
        self._paused = False

    def hold(self, first: Message) -> None:
        place = (first.topic, first.partition)
        if place in self.owned:
            self._held.add(place)
            self._positions[place] = first.offset

    def release(self, place: Place) -> None:
        self._held.discard(place)

    def mark(self, first: Message, note: str) -> None:
        with self._broker.changed:
            self._broker.answer()
            place = (first.topic, first.partition)
            if place in self.owned:
                self._broker.commits[self._group][place] = first.offset
                self._broker.notes[self._group][place] = note

    def note(self, place: Place) -> str:
        with self._broker.changed:
            self._broker.answer()
            return self._broker.notes[self._group].get(place, "")

    def assignment(self) -> frozenset[Place]:
        with self._broker.changed:
            return frozenset(self.owned)

    def lag(self) -> Mapping[str, int]:
        with self._broker.changed:
            self._broker.answer()
            lag = dict.fromkeys(self._topics, 0)
            for place in self.owned:
                lag[place[0]] += len(self._broker.logs.get(place, [])) - self._positions[place]
            return lag

    def close(self) -> None:
        with self._broker.changed:
            if not self._closed:
                self._closed = True
                self._broker.members[self._group].remove(self)
                self.owned.clear()
                self._broker.rebalance(self._group)


class MemoryDesk:
    """An Admin."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def ensure_topics(self, topics: Sequence[Topic], replication: int, max_message_bytes: int) -> None:
        with self._broker.changed:
            self._broker.answer()
            for topic in topics:
                self._broker.partitions.setdefault(topic.name, topic.partitions)
            self._broker.max_message_bytes = max(self._broker.max_message_bytes, max_message_bytes)

    def keep(self, topic: str, retention_ms: int) -> None:
        with self._broker.changed:
            self._broker.answer()
            self._broker.count(topic)
            self._broker.retention_ms[topic] = retention_ms

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        with self._broker.changed:
            self._broker.answer()
            return {n: len(self._broker.logs.get((topic, n), [])) for n in range(self._broker.count(topic))}

    def read(self, topic: str, since_ms: int = 0, start: Mapping[int, int] = MappingProxyType({})) -> Iterator[Message]:
        with self._broker.changed:
            self._broker.answer()
            found: list[Message] = []
            for partition in range(self._broker.count(topic)):
                kept = self._broker.logs.get((topic, partition), [])[start.get(partition, 0) :]
                late = next((at for at, message in enumerate(kept) if message.timestamp_ms >= since_ms), len(kept))
                found.extend(kept[late:])
            return iter(found)

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        with self._broker.changed:
            self._broker.answer()
            return {n: offset for (name, n), offset in self._broker.commits[group].items() if name == topic}

    def begin_at_end(self, group: str, topics: Sequence[str]) -> None:
        with self._broker.changed:
            self._broker.answer()
            for topic in (topic for topic in topics if topic in self._broker.partitions):
                for number, end in self.end_offsets(topic).items():
                    self._broker.commits[group].setdefault((topic, number), end)

    def lag(self, group: str, topic: str) -> int:
        ends, done = self.end_offsets(topic), self.committed(group, topic)
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    def ping(self) -> None:
        self._broker.answer()
