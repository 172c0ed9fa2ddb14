"""Members of a group on a real broker, polled in turn as a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.kafka_member import KafkaMember

PATIENCE_S = 60.0


def turning(members: list[KafkaMember], true: Callable[[], object], what: str, poll_s: float = 0.05) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        for member in members:
            member.poll(poll_s, 10)


def generation(member: KafkaMember) -> int:
    found = member._client._coordinator.generation_if_stable()
    return int(found.generation_id) if found is not None else -1


def stable(member: KafkaMember) -> bool:
    """Whether no rebalance goes on as far as it knows."""
    return member._client is not None and generation(member) != -1
