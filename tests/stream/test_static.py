"""Static membership (KIP-345): who comes back under its name within the session finds its partitions, and nobody is disturbed."""

from __future__ import annotations

import uuid

from schemas.topics import Topic
from stream.kafka import KafkaBroker
from stream.kafka_member import KafkaMember
from stream.settings import StreamSettings
from tests.stream.members import generation, turning


def test_a_member_that_restarts_under_its_name_moves_no_partition(kafka_bootstrap: str) -> None:
    settings = StreamSettings(bootstrap_servers=kafka_bootstrap, replication=1, session_timeout_ms=45_000)
    broker = KafkaBroker(settings)
    topic, group = f"topic-{uuid.uuid4().hex[:8]}", f"group-{uuid.uuid4().hex[:8]}"
    broker.admin().ensure_topics([Topic(topic, "key", 4, 3_600_000)], 1, settings.max_message_bytes)

    def member(name: str) -> KafkaMember:
        made = broker.consumer([topic], group, instance=name)
        assert isinstance(made, KafkaMember)
        return made

    one, two = member("pod-1"), member("pod-2")
    turning([one, two], lambda: len(one.assignment()) == len(two.assignment()) == 2, "two partitions each")
    had, before = one.assignment(), generation(two)

    one.close()
    again = member("pod-1")
    turning([again, two], again.assignment, "its partitions")

    assert again.assignment() == had
    assert generation(two) == before
    broker.close()
