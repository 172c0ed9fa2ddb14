"""A member of a consumer group of a real Kafka."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata

from faults import point
from schemas.errors import TryLater
from stream.kafka_join import keep_joins
from stream.kafka_records import read_all
from stream.kafka_words import MOVED, consequences, message_of
from stream.messages import Message, Place
from stream.settings import StreamSettings
from stream.sizes import ENVELOPE_BYTES, MIB, OVERHEAD_BYTES, unpacked_limit

log = structlog.get_logger()

ALL = 1_000_000_000  # records: whatever a fetch has brought
STAY_S = 1.0  # how often the client is polled at least while there are messages in store
TURN_S = 0.05  # between two looks at a rebalance that goes on
AWAY_S = 3.0  # without a coordinator for so long: the broker is away
CLOSE_MS = 5000
BETWEEN_MS = 1000  # how long a poll may be held up by what is done beside it: late commits, the lag


class _Moves(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the member which partitions come and go; called within the client's poll() and close()."""

    def __init__(self, member: KafkaMember) -> None:
        self._member = member

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._member.take(assigned)

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._member.forget(revoked)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._member.forget(lost)


class KafkaMember:
    """A Consumer; connects when it is polled first.

    All that a fetch brought is taken from the client at once and kept in store here: kafka-python fetches nothing from a
    partition of which it still holds records, and then waits a whole fetch_max_wait_ms (0.5 s) for the others first.
    """

    def __init__(self, settings: StreamSettings, topics: Sequence[str], group: str, instance: str | None) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._group = group
        self._instance = instance
        self._client: Any = None
        self._paused = False
        self._held: set[Any] = set()
        self._store: deque[Message] = deque()
        self._given: dict[
            Any, int
        ] = {}  # per partition, the offset after the last message given out since it came here
        self._owed: dict[Any, int] = {}  # offsets to commit
        self._polled_at = 0.0
        self._answered_at = time.monotonic()

    def poll(self, timeout_s: float, max_records: int) -> list[Message]:
        client = self._connected()
        if self._store and not self._paused:
            # a rebalance waits for its slowest member, and takes several polls of each: one a second would be thrown out
            if time.monotonic() - self._polled_at > STAY_S or client._coordinator.need_rejoin():
                self._stay(client)
        else:
            self._fetch(client, timeout_s)
        if self._paused:
            return []
        batch = [self._store.popleft() for _ in range(min(max_records, len(self._store)))]
        for message in batch:
            self._given[TopicPartition(message.topic, message.partition)] = message.offset + 1
        return batch

    def commit(self, upto: Sequence[Message]) -> None:
        for message in upto:
            place = TopicPartition(message.topic, message.partition)
            given = self._given.get(place, 0)
            if given > message.offset:
                done = message.offset + 1
                if done == given:
                    done = self._behind_marks(place) or done
                self._owed[place] = max(self._owed.get(place, 0), done)
        self._pay(self._settings.request_timeout_ms)

    def pause_all(self) -> None:
        self._paused = True
        if self._client is not None:
            self._client.pause(*self._client.assignment())

    def resume_all(self) -> None:
        self._paused = False
        if self._client is not None:
            self._client.resume(*(self._client.assignment() - self._held))

    def hold(self, first: Message) -> None:
        place = TopicPartition(first.topic, first.partition)
        if self._client is None or place not in self._client.assignment():
            return
        self._held.add(place)
        self._client.pause(place)
        self._client.seek(place, first.offset)
        self._store = deque(m for m in self._store if (m.topic, m.partition) != (first.topic, first.partition))
        self._given[place] = first.offset

    def release(self, place: Place) -> None:
        partition = TopicPartition(*place)
        if partition in self._held:
            self._held.discard(partition)
            if self._client is not None and not self._paused and partition in self._client.assignment():
                self._client.resume(partition)

    def mark(self, first: Message, note: str) -> None:
        place = TopicPartition(first.topic, first.partition)
        if self._client is None or place not in self._client.assignment():
            return
        point("note.before_commit")
        try:
            with consequences():
                self._client.commit(
                    {place: OffsetAndMetadata(first.offset, note, -1)}, timeout_ms=self._settings.request_timeout_ms
                )
        except MOVED as error:
            log.info("note not left while the group rebalances", group=self._group, reason=str(error))
            return
        self._owed.pop(place, None)
        point("note.after_commit")

    def note(self, place: Place) -> str:
        if self._client is None:
            return ""
        with consequences():
            found = self._client.committed(
                TopicPartition(*place), metadata=True, timeout_ms=self._settings.request_timeout_ms
            )
        return str(found.metadata or "") if found is not None else ""

    def assignment(self) -> frozenset[Place]:
        if self._client is None:
            return frozenset()
        return frozenset((place.topic, place.partition) for place in self._client.assignment())

    def lag(self) -> Mapping[str, int]:
        lag = dict.fromkeys(self._topics, 0)
        places = [] if self._client is None else list(self._client.assignment())
        if places:
            with consequences():
                ends = self._client.end_offsets(places, timeout_ms=BETWEEN_MS)
                for place, end in ends.items():
                    at = self._behind_marks(place)
                    if at is None:
                        at = self._client.position(place, timeout_ms=BETWEEN_MS)
                    lag[place.topic] += max(0, end - (at or 0))
        return lag

    def _behind_marks(self, place: Any) -> int | None:
        """Up to where the partition has been given out, the marks of transactions behind the last message included.

        None before the first message. Asks nobody: the marks came with the message.
        """
        at = self._given.get(place)
        if at is None or any((m.topic, m.partition) == (place.topic, place.partition) for m in self._store):
            return at
        state = self._client._subscription.assignment.get(place)
        return max(at, state.position.offset) if state is not None and state.position is not None else at

    def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.close(autocommit=False, timeout_ms=CLOSE_MS)
        except kafka_errors.KafkaError as error:
            log.warning("the group was not left: the broker will notice", group=self._group, reason=str(error))
        self.forget(list(self._given))

    def take(self, assigned: Iterable[Any]) -> None:
        """Partitions have come to this member; while it is paused they are paused too."""
        places = list(assigned)
        log.info("partitions assigned", group=self._group, partitions=_names(places))
        if self._paused and places:
            self._client.pause(*places)

    def forget(self, gone: Iterable[Any]) -> None:
        """Partitions have gone from this member: nothing of them is given out or committed any more."""
        places = set(gone)
        if places:
            log.info("partitions revoked", group=self._group, partitions=_names(places))
        self._store = deque(m for m in self._store if TopicPartition(m.topic, m.partition) not in places)
        self._held -= places
        for place in places:
            self._given.pop(place, None)
            self._owed.pop(place, None)

    def _connected(self) -> Any:
        if self._client is None:
            settings = self._settings
            largest = settings.max_message_bytes + ENVELOPE_BYTES + OVERHEAD_BYTES
            with consequences():
                client = KafkaConsumer(
                    **settings.connection(),
                    group_id=self._group,
                    group_instance_id=self._instance,
                    auto_offset_reset="earliest",
                    enable_auto_commit=False,
                    isolation_level="read_committed",
                    allow_auto_create_topics=False,
                    partition_assignment_strategy=[CooperativeStickyAssignor],
                    session_timeout_ms=settings.session_timeout_ms,
                    heartbeat_interval_ms=settings.heartbeat_interval_ms,
                    max_poll_interval_ms=settings.max_poll_interval_ms,
                    max_partition_fetch_bytes=largest,
                    fetch_max_bytes=max(50 * MIB, largest),
                    bootstrap_timeout_ms=settings.request_timeout_ms,
                )
            keep_joins(client)
            read_all(client, unpacked_limit(settings.max_message_bytes))
            self._client = client
            self._answered_at = time.monotonic()
            client.subscribe(topics=self._topics, listener=_Moves(self))
        return self._client

    def _fetch(self, client: Any, timeout_s: float) -> None:
        if self._owed:
            self._pay(BETWEEN_MS)
        rejoins = client._coordinator.need_rejoin() and client.assignment()
        with consequences():
            found = client.poll(timeout_ms=0 if rejoins else int(timeout_s * 1000), max_records=ALL)
            if rejoins and not found:
                found = self._meanwhile(client, timeout_s)
        self._keep(found)
        now = self._polled_at
        if found or not client._coordinator.coordinator_unknown():
            self._answered_at = now
        elif now - self._answered_at > AWAY_S:  # the client itself keeps quiet about it
            raise TryLater(f"kafka: no broker has answered for {now - self._answered_at:.0f} s")

    def _meanwhile(self, client: Any, timeout_s: float) -> Mapping[Any, Sequence[Any]]:
        """What comes in while the group rebalances: what is assigned stays this member's until it is revoked (KIP-429).

        kafka-python's own poll() brings nothing until all members have joined, for as long as the slowest one's heartbeat.
        """
        wait_s = min(timeout_s, TURN_S)
        if self._paused or client._coordinator.generation_if_stable() is not None:
            return {}
        found: Mapping[Any, Sequence[Any]]
        found, idle = client._fetcher.fetch_records(ALL, timeout_ms=int(wait_s * 1000))
        if idle:
            time.sleep(wait_s)
        return found

    def _stay(self, client: Any) -> None:
        """Stays a member without fetching more."""
        client.pause(*client.assignment())
        try:
            with consequences():
                found = client.poll(timeout_ms=0, max_records=ALL)  # a partition that has just come is not paused
        finally:
            client.resume(*(client.assignment() - self._held))
        self._keep(found)

    def _keep(self, found: Mapping[Any, Sequence[Any]]) -> None:
        self._polled_at = time.monotonic()
        self._store.extend(message_of(record) for records in found.values() for record in records)

    def _pay(self, timeout_ms: int) -> None:
        if not self._owed or self._client is None:
            return
        offsets = {place: OffsetAndMetadata(offset, "", -1) for place, offset in self._owed.items()}
        point("offset.before_commit")
        try:
            with consequences():
                self._client.commit(offsets, timeout_ms=timeout_ms)
        except MOVED as error:
            # after the rebalance: what is still here is committed by the next poll, what has gone is forgotten
            log.info("offsets not committed while the group rebalances", group=self._group, reason=str(error))
            return
        self._owed.clear()
        point("offset.after_commit")


def _names(places: Iterable[Any]) -> list[str]:
    return sorted(f"{place.topic}/{place.partition}" for place in places)
