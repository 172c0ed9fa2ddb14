"""Partitions that are held: nothing of them is taken until their time is over; the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stream.broker import Consumer
from stream.messages import Message, Place
from telemetry import metrics
from telemetry.health import Health

log = structlog.get_logger()


@dataclass(frozen=True)
class _Held:
    until: float
    reason: str


class Holds:
    """What this member holds, and why; shown in readiness, for somebody has to see to it."""

    def __init__(self, consumer: Consumer, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._consumer = consumer
        self._health = health
        self._clock = clock
        self._held: dict[Place, _Held] = {}

    def hold(self, first: Message, for_s: float, reason: str) -> None:
        """Holds the message's partition; it goes on with this message after for_s seconds."""
        place = (first.topic, first.partition)
        self._consumer.hold(first)
        if place not in self._held:
            log.error(
                "partition held", partition=f"{first.topic}/{first.partition}", offset=first.offset, reason=reason
            )
        self._held[place] = _Held(self._clock() + for_s, f"{first.topic}/{first.partition} at {first.offset}: {reason}")
        self._show()

    def turn(self) -> None:
        """Lets go of those whose time is over, and forgets those that have gone to another member."""
        if not self._held:
            return
        ours = self._consumer.assignment()
        for place, held in list(self._held.items()):
            if place not in ours:
                del self._held[place]
            elif held.until <= self._clock():
                del self._held[place]
                self._consumer.release(place)
        self._show()

    def _show(self) -> None:
        metrics.partitions_held.set(len(self._held))
        reasons = "; ".join(sorted(held.reason for held in self._held.values()))
        self._health.ready("partitions", not self._held, reasons)
