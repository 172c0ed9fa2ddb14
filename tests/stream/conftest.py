"""Both brokers, so that one suite runs over each."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from schemas.topics import Topic
from stream.broker import Broker
from stream.kafka import KafkaBroker
from stream.memory import MemoryBroker
from stream.settings import StreamSettings

MAX_BYTES = 2 * 1024 * 1024


@dataclass
class Belt:
    """A broker with a topic of three partitions and a name for a group of this test's own."""

    broker: Broker
    topic: str
    group: str
    again: Callable[[], Broker]
    retention_ms: Callable[[str], int]


def retention_ms(bootstrap: str, topic: str) -> int:
    """As the broker has it."""
    client = KafkaAdminClient(bootstrap_servers=[bootstrap])
    try:
        found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        entry = found["topic"][topic]["retention.ms"]
        return int(entry["value"] if isinstance(entry, dict) else entry)
    finally:
        client.close()


@pytest.fixture(params=["memory", "kafka"])
def belt(request: pytest.FixtureRequest) -> Iterator[Belt]:
    name = uuid.uuid4().hex[:12]
    if request.param == "memory":
        memory = MemoryBroker(MAX_BYTES)
        made = Belt(memory, f"topic-{name}", f"group-{name}", lambda: memory, memory.retention_ms.__getitem__)
    else:
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        settings = StreamSettings(bootstrap_servers=bootstrap, max_message_bytes=MAX_BYTES, replication=1)
        opened = [KafkaBroker(settings)]

        def again() -> Broker:
            opened.append(KafkaBroker(settings))
            return opened[-1]

        made = Belt(opened[0], f"topic-{name}", f"group-{name}", again, lambda topic: retention_ms(bootstrap, topic))
    made.broker.admin().ensure_topics([Topic(made.topic, "key", 3, 3_600_000)], 1, MAX_BYTES)
    yield made
    if request.param == "kafka":
        for one in opened:
            one.close()
    else:
        made.broker.close()
