"""Topics and offsets of a real Kafka, over kafka-python's admin client."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from schemas.errors import TryLater
from schemas.topics import Topic
from stream.kafka_errors import consequences
from stream.settings import StreamSettings
from stream.sizes import batch_limit

log = structlog.get_logger()


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

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        with self._asking() as client:
            (described,) = client.describe_topics([topic])
            places = [TopicPartition(topic, part["partition_index"]) for part in described["partitions"]]
            if not places:
                raise TryLater(f"kafka: there is no topic {topic}")
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
