"""The real broker, over kafka-python 3. Its errors become TryLater where time heals them; the rest stops the process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata

from schemas.errors import InvalidMessage, TryLater
from schemas.topics import Topic
from stream.broker import Admin, Consumer, Headers, Producer
from stream.messages import Message
from stream.settings import OVERHEAD_BYTES, StreamSettings

log = structlog.get_logger()

T = TypeVar("T")

MOVED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
"""A commit is refused with one of these when the partition has gone, or is going, to another member."""

HEALS = (
    kafka_errors.RetriableError,
    kafka_errors.UnrecognizedBrokerVersion,
    kafka_errors.BrokerNotAvailableError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    OSError,
)
"""What time, or an operator, heals without a restart of ours."""


@contextlib.contextmanager
def _consequences() -> Iterator[None]:
    try:
        yield
    except HEALS as error:
        raise TryLater(f"kafka: {type(error).__name__}: {error}") from error


class KafkaSender:
    """A Producer. Each thread waits for its own messages only."""

    def __init__(self, settings: StreamSettings) -> None:
        self._max_bytes = settings.max_message_bytes
        with _consequences():
            self._client = KafkaProducer(
                **settings.connection(),
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_request_size=settings.max_message_bytes + OVERHEAD_BYTES,
                max_block_ms=settings.request_timeout_ms,
                delivery_timeout_ms=settings.request_timeout_ms * 3,
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=settings.request_timeout_ms,
            )
        self._sent = threading.local()

    def send(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> None:
        if value is not None and len(value) > self._max_bytes:
            raise InvalidMessage(
                f"a message for {topic} has {len(value)} bytes; at most {self._max_bytes} are allowed (EVENTPROC_MAX_MESSAGE_BYTES)",
                value,
            )
        try:
            with _consequences():
                future = self._client.send(topic, value=value, key=key, headers=list(headers))
        except kafka_errors.MessageSizeTooLargeError as error:
            raise InvalidMessage(f"a message for {topic} is too large: {error}", value or b"") from error
        self._futures().append(future)

    def flush(self, timeout_s: float) -> None:
        futures = self._futures()
        self._sent.futures = []
        with _consequences():
            for future in futures:
                future.get(timeout=timeout_s)

    def close(self) -> None:
        self._client.close(timeout=1)

    def _futures(self) -> list[Any]:
        if not hasattr(self._sent, "futures"):
            self._sent.futures = []
        futures: list[Any] = self._sent.futures
        return futures


class _PauseNew(ConsumerRebalanceListener):  # type: ignore[misc]
    """While the consumer is paused, partitions that come to it are paused too."""

    def __init__(self) -> None:
        self.client: Any = None
        self.paused = False

    def on_partitions_revoked(self, revoked: Any) -> None:
        log.info("partitions revoked", partitions=[f"{t}/{p}" for t, p in revoked])

    def on_partitions_assigned(self, assigned: Any) -> None:
        log.info("partitions assigned", partitions=[f"{t}/{p}" for t, p in assigned])
        if self.paused and assigned:
            self.client.pause(*assigned)


class KafkaMember:
    """A Consumer."""

    def __init__(self, settings: StreamSettings, topics: Sequence[str], group: str, instance: str | None) -> None:
        self._listener = _PauseNew()
        fetch_bytes = settings.max_message_bytes + OVERHEAD_BYTES
        with _consequences():
            self._client = KafkaConsumer(
                **settings.connection(),
                group_id=group,
                group_instance_id=instance,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                allow_auto_create_topics=False,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=settings.session_timeout_ms // 5,
                max_poll_interval_ms=settings.max_poll_interval_ms,
                max_partition_fetch_bytes=fetch_bytes,
                receive_message_max_bytes=max(fetch_bytes * 8, 128 * 1024 * 1024),
                bootstrap_timeout_ms=settings.request_timeout_ms,
            )
            self._listener.client = self._client
            self._client.subscribe(topics=list(topics), listener=self._listener)
        self._commit_timeout_ms = settings.request_timeout_ms

    def poll(self, timeout_s: float, max_records: int) -> list[Message]:
        with _consequences():
            found = self._client.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        return [_message(record) for records in found.values() for record in records]

    def commit(self, upto: Sequence[Message]) -> None:
        mine = self.assignment()
        last: dict[Any, int] = {}
        for message in upto:
            place = TopicPartition(message.topic, message.partition)
            if (message.topic, message.partition) in mine:
                last[place] = max(last.get(place, -1), message.offset)
        if not last:
            return
        offsets = {place: OffsetAndMetadata(offset + 1, "", -1) for place, offset in last.items()}
        try:
            with _consequences():
                self._client.commit(offsets, timeout_ms=self._commit_timeout_ms)
        except MOVED as error:
            log.warning("offsets not committed: the partitions move to another member", reason=str(error))

    def pause_all(self) -> None:
        self._listener.paused = True
        self._client.pause(*self._client.assignment())

    def resume_all(self) -> None:
        self._listener.paused = False
        self._client.resume(*self._client.assignment())

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset((place.topic, place.partition) for place in self._client.assignment())

    def close(self) -> None:
        self._client.close(autocommit=False, timeout_ms=5000)


def _message(record: Any) -> Message:
    headers = tuple((name, value if value is not None else b"") for name, value in record.headers)
    return Message(record.topic, record.partition, record.offset, record.key, record.value, headers, record.timestamp)


class KafkaDesk:
    """An Admin; connects when it is asked first, and anew after an error."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._lock = threading.Lock()

    def ensure_topics(self, topics: Sequence[Topic], replication: int, max_message_bytes: int) -> None:
        size = str(max_message_bytes + OVERHEAD_BYTES)
        with self._asking() as client:
            there = set(client.list_topics())
            missing = [topic for topic in topics if topic.name not in there]
            if missing:
                specs = {topic.name: _spec(topic, replication, size) for topic in missing}
                try:
                    client.create_topics(specs, wait_for_metadata=True)
                except kafka_errors.TopicAlreadyExistsError:
                    raise TryLater("kafka: somebody else is making the topics just now") from None
                log.info("topics made", topics=[topic.name for topic in missing])
            self._raise_sizes(client, [topic.name for topic in topics if topic.name in there], size)

    @staticmethod
    def _raise_sizes(client: Any, names: Sequence[str], size: str) -> None:
        if not names:
            return
        found = client.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
        )
        small = [name for name in names if int(_config(found, name, "max.message.bytes")) < int(size)]
        if small:
            client.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": size}) for name in small]
            )
            log.info("topics take larger messages now", topics=small, bytes=size)

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        with self._asking() as client:
            (described,) = client.describe_topics([topic])
            places = [TopicPartition(topic, _partition_index(part)) for part in described["partitions"]]
            found = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
            return {place.partition: at.offset for place, at in found.items()}

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        with self._asking() as client:
            found = client.list_group_offsets(group)[group]
            return {
                place.partition: at.offset for place, at in found.items() if place.topic == topic and at.offset >= 0
            }

    def lag(self, group: str, topic: str) -> int:
        ends, done = self.end_offsets(topic), self.committed(group, topic)
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    def ping(self) -> None:
        with self._asking() as client:
            client.list_topics()

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._client is not None:
            self._client.close()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        with self._lock:
            try:
                with _consequences():
                    if self._client is None:
                        self._client = KafkaAdminClient(
                            **self._settings.connection(), bootstrap_timeout_ms=self._settings.request_timeout_ms
                        )
                    yield self._client
            except TryLater:
                if self._client is not None:
                    self._client.close()
                    self._client = None
                raise


def _spec(topic: Topic, replication: int, size: str) -> dict[str, Any]:
    configs = {
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": size,
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "min.insync.replicas": str(min(2, replication)),
    }
    return {"num_partitions": topic.partitions, "replication_factor": replication, "configs": configs}


def _config(found: Any, topic: str, name: str) -> str:
    entry = found["topic"][topic][name]
    return str(entry["value"] if isinstance(entry, dict) else entry)


def _partition_index(described: Mapping[str, Any]) -> int:
    return int(described["partition_index"] if "partition_index" in described else described["partition"])


class KafkaBroker:
    """The Broker that the settings name."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._opened: list[Any] = []

    def producer(self) -> Producer:
        return self._keep(KafkaSender(self._settings))

    def consumer(self, topics: Sequence[str], group: str, *, instance: str | None = None) -> Consumer:
        return self._keep(KafkaMember(self._settings, topics, group, instance))

    def admin(self) -> Admin:
        return self._keep(KafkaDesk(self._settings))

    def close(self) -> None:
        for opened in reversed(self._opened):
            opened.close()
        self._opened.clear()

    def _keep(self, opened: T) -> T:
        self._opened.append(opened)
        return opened
