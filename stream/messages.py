"""A message as it comes from a topic."""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[str, int]
"""A topic and a partition of it."""


@dataclass(frozen=True)
class Message:
    """One record of a partition; timestamp_ms as the broker or the producer set it, ms since the epoch."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
