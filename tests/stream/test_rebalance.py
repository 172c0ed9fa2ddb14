"""While a group rebalances: who has partitions goes on with them, and a store full of messages holds nobody up."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from schemas.topics import Topic
from stream.kafka import KafkaBroker
from stream.kafka_member import KafkaMember
from stream.settings import StreamSettings
from tests.stream.members import stable, turning

PARTITIONS = 6


class Ground:
    """A topic and a group of its own on the real broker."""

    def __init__(self, bootstrap: str, max_poll_interval_ms: int = 300_000) -> None:
        settings = StreamSettings(bootstrap_servers=bootstrap, replication=1, max_poll_interval_ms=max_poll_interval_ms)
        self.broker = KafkaBroker(settings)
        self.topic, self.group = f"topic-{uuid.uuid4().hex[:8]}", f"group-{uuid.uuid4().hex[:8]}"
        self.broker.admin().ensure_topics(
            [Topic(self.topic, "key", PARTITIONS, 3_600_000)], 1, settings.max_message_bytes
        )
        self._producer = self.broker.producer()

    def member(self) -> KafkaMember:
        made = self.broker.consumer([self.topic], self.group)
        assert isinstance(made, KafkaMember)
        return made

    def send(self, count: int) -> set[bytes]:
        values = {uuid.uuid4().bytes for _ in range(count)}
        for value in values:
            self._producer.send(self.topic, value, key=value)
        self._producer.flush(30)
        return values


@pytest.fixture
def ground(kafka_bootstrap: str) -> Iterator[Ground]:
    made = Ground(kafka_bootstrap)
    yield made
    made.broker.close()


def test_a_member_goes_on_with_its_partitions_while_another_holds_the_rebalance_up(ground: Ground) -> None:
    one, busy, new = ground.member(), ground.member(), ground.member()
    turning([one, busy], lambda: len(one.assignment()) == len(busy.assignment()) == 3, "three partitions each")

    # given: one that joins, and one that does not poll meanwhile, so that the rebalance cannot end
    turning([one, new], lambda: not stable(one), "the first to take part in the rebalance")
    mine = one.assignment()
    ground.send(60)
    found: set[tuple[str, int]] = set()

    def read() -> bool:
        found.update((message.topic, message.partition) for message in one.poll(0.05, 10))
        return found == mine

    turning([new], read, "messages of all its partitions")

    assert len(mine) == 3 and not stable(one)
    turning([one, busy, new], lambda: new.assignment() and stable(one) and stable(busy), "the rebalance to end")
    assert sum(len(member.assignment()) for member in (one, busy, new)) == PARTITIONS


def test_a_member_with_much_in_store_takes_part_in_a_rebalance_at_once(kafka_bootstrap: str) -> None:
    """Its poll interval, after which the group goes on without it, is as short as can be."""
    ground = Ground(kafka_bootstrap, max_poll_interval_ms=2000)
    one, new = ground.member(), ground.member()
    ground.send(20_000)
    turning([one], lambda: one._store, "a store")

    turning([one, new], new.assignment, "the second to have partitions")

    assert one._store and one.assignment(), "it still has what it had in store, and its place in the group"
    ground.broker.close()


@pytest.mark.parametrize("poll_s", [0.0, 0.02])
def test_a_member_that_looks_in_shortly_has_the_partitions_of_a_topic_that_is_made_later(
    ground: Ground, poll_s: float
) -> None:
    """As its leader it joins twice: once without any, and once when it has learnt of them."""
    later = f"later-{uuid.uuid4().hex[:8]}"
    for _ in range(5):
        member = ground.broker.consumer([later], f"group-{uuid.uuid4().hex[:8]}")
        assert isinstance(member, KafkaMember)
        turning([member], lambda: stable(member), "a group without partitions", poll_s)  # noqa: B023
        ground.broker.admin().ensure_topics([Topic(later, "key", PARTITIONS, 3_600_000)], 1, 1024 * 1024)

        turning([member], lambda: len(member.assignment()) == PARTITIONS, "its partitions", poll_s)  # noqa: B023
        member.close()
