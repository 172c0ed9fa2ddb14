"""Topics and offsets of a real Kafka, over kafka-python's admin client."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import structlog
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.protocol.consumer import IsolationLevel
from kafka.structs import OffsetAndMetadata

from schemas.errors import TryLater
from schemas.topics import Topic
from stream.kafka_records import read_all
from stream.kafka_words import consequences, message_of
from stream.messages import Message
from stream.settings import StreamSettings
from stream.sizes import ENVELOPE_BYTES, OVERHEAD_BYTES, batch_limit, unpacked_limit

log = structlog.get_logger()

QUIET_S = 15.0
COMMITTED = IsolationLevel.READ_COMMITTED  # what a transaction under way has written is not there yet


class KafkaDesk:
    """An Admin; connects when it is asked first, and anew after an error."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._lock = threading.Lock()

    def ensure_topics(self, topics: Sequence[Topic], replication: int, max_message_bytes: int) -> None:
        with self._asking() as client:
            there = set(client.list_topics())
            missing = [topic for topic in topics if topic.name not in there]
            if missing:
                specs = {topic.name: _spec(topic, replication, max_message_bytes) for topic in missing}
                try:
                    client.create_topics(specs, wait_for_metadata=True)
                except kafka_errors.TopicAlreadyExistsError:
                    raise TryLater("kafka: somebody else is making the topics just now") from None
                except kafka_errors.InvalidReplicationFactorError as error:
                    raise TryLater(
                        f"kafka: fewer brokers are up than the {replication} replicas asked for "
                        f"(EVENTPROC_KAFKA_REPLICATION): {error}"
                    ) from error
                log.info("topics made", topics=[topic.name for topic in missing])
            wanted = {t.name: batch_limit(t.name, max_message_bytes) for t in topics if t.name in there}
            self._raise_sizes(client, wanted)

    @staticmethod
    def _raise_sizes(client: Any, wanted: Mapping[str, int]) -> None:
        if not wanted:
            return
        found = client.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted], config_filter="all"
        )
        small = [name for name, size in wanted.items() if int(_config(found, name, "max.message.bytes")) < size]
        if small:
            client.alter_configs(
                [
                    ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": str(wanted[name])})
                    for name in small
                ]
            )
            log.info("topics take larger messages now", topics={name: wanted[name] for name in small})

    def keep(self, topic: str, retention_ms: int) -> None:
        with self._asking() as client:
            found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
            if not found["topic"][topic]:
                raise TryLater(f"kafka: there is no topic {topic}, or we may not see it")
            if int(_config(found, topic, "retention.ms")) != retention_ms:
                changed = {"retention.ms": str(retention_ms)}
                client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changed)])
                log.info("the topic keeps messages for another time now", topic=topic, retention_ms=retention_ms)

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        with self._asking() as client:
            (described,) = client.describe_topics([topic])
            places = [TopicPartition(topic, part["partition_index"]) for part in described["partitions"]]
            if not places:
                raise TryLater(f"kafka: there is no topic {topic}, or we may not see it")
            found = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST), COMMITTED)
            return {place.partition: at.offset for place, at in found.items()}

    def read(self, topic: str, since_ms: int = 0, start: Mapping[int, int] = MappingProxyType({})) -> Iterator[Message]:
        ends = {TopicPartition(topic, number): end for number, end in self.end_offsets(topic).items()}
        settings = self._settings
        with consequences():
            client = KafkaConsumer(
                **settings.connection(),
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",  # what start names may have been deleted since
                allow_auto_create_topics=False,
                max_partition_fetch_bytes=settings.max_message_bytes + ENVELOPE_BYTES + OVERHEAD_BYTES,
                bootstrap_timeout_ms=settings.request_timeout_ms,
            )
        read_all(client, unpacked_limit(settings.max_message_bytes))
        try:
            client.assign(list(ends))
            with consequences():
                self._begin(client, ends, since_ms, start)
            yield from self._to_the_ends(client, ends)
        finally:
            client.close()

    @staticmethod
    def _begin(client: Any, ends: Mapping[Any, int], since_ms: int, start: Mapping[int, int]) -> None:
        first = client.beginning_offsets(list(ends))
        if since_ms > 0:
            found = client.offsets_for_times(dict.fromkeys(ends, since_ms))
            first = {place: found[place].offset if found.get(place) else end for place, end in ends.items()}
        for place in ends:
            client.seek(place, max(first[place], start.get(place.partition, 0)))

    @staticmethod
    def _to_the_ends(client: Any, ends: Mapping[Any, int]) -> Iterator[Message]:
        deadline = time.monotonic() + QUIET_S
        while any(client.position(place) < end for place, end in ends.items()):
            with consequences():
                found = client.poll(timeout_ms=500)
            if found:
                deadline = time.monotonic() + QUIET_S
            elif time.monotonic() > deadline:
                raise TryLater(
                    f"kafka: nothing more came for {QUIET_S:.0f} s before the end of {next(iter(ends)).topic}"
                )
            for place, records in found.items():
                yield from (message_of(record) for record in records if record.offset < ends[place])

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        with self._asking() as client:
            found = client.list_group_offsets(group)[group]
            return {
                place.partition: at.offset for place, at in found.items() if place.topic == topic and at.offset >= 0
            }

    def begin_at_end(self, group: str, topics: Sequence[str]) -> None:
        with self._asking() as client:
            there = set(client.list_topics())
        ends: dict[Any, Any] = {}
        for topic in (topic for topic in topics if topic in there):
            begun = self.committed(group, topic)
            for number, end in self.end_offsets(topic).items():
                if number not in begun:
                    ends[TopicPartition(topic, number)] = OffsetAndMetadata(end, "", -1)
        if ends:
            with self._asking() as client:
                for refused in client.alter_group_offsets(group, ends).values():
                    if refused is not kafka_errors.NoError:
                        raise refused(f"group {group}")

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
                with consequences():
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


def _spec(topic: Topic, replication: int, max_message_bytes: int) -> dict[str, Any]:
    configs = {
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(batch_limit(topic.name, max_message_bytes)),
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "min.insync.replicas": str(min(2, replication)),
    }
    return {"num_partitions": topic.partitions, "replication_factor": replication, "configs": configs}


def _config(found: Any, topic: str, name: str) -> str:
    entry = found["topic"][topic][name]
    return str(entry["value"] if isinstance(entry, dict) else entry)
