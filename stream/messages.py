"""A message as it comes from a topic."""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[str, int]
"""A topic and a partition of it."""

BATCH = "a batch of messages cannot be read"
"""So begins what is said of a batch whose messages cannot be told from each other."""


@dataclass(frozen=True)
class Message:
    """One record of a partition; timestamp_ms as the broker or the producer set it, ms since the epoch.

    unreadable: why it cannot be read, where already the broker's client could not: value then holds the bytes of the whole batch,
    and offset is its last one's. damaged: they are not those that were sent, so that looking again may help.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    unreadable: str = ""
    damaged: bool = False
