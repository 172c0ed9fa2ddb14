"""The processing loop of every station, and the one place where an error becomes its consequence.

InvalidMessage -> dead letter; TryLater -> back off, then the same batch; anything else -> the process stops.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from schemas.encoding import AVRO_TYPE, encode
from schemas.errors import InvalidMessage, TryLater
from schemas.records import DeadLetter, to_plain
from schemas.topics import DEAD_LETTERS
from stream.broker import Consumer, Producer
from stream.messages import Message
from telemetry import metrics
from telemetry.health import Health

log = structlog.get_logger()

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 10.0
TURN_S = 0.1
FLUSH_S = 30.0
LAG_EVERY_S = 5.0
LONGEST_REASON = 10_000
KEPT_BYTES = 1024 * 1024  # of a message that is too large for a dead letter


@dataclass(frozen=True)
class Rejected:
    """A message that can never be read, and why."""

    message: Message
    reason: str


class Step(Protocol):
    """The work of a station."""

    def handle(self, batch: Sequence[Message]) -> Sequence[Rejected]:
        """Does all that follows from the batch, durably; returns what could not be read. Raises TryLater to get it again."""


def run(
    consumer: Consumer,
    step: Step,
    *,
    dead_letters: Producer,
    group: str,
    health: Health,
    stop: threading.Event,
    max_records: int = 500,
    poll_s: float = 0.5,
    room: Callable[[], int] | None = None,
    wait_for_room: Callable[[float], None] | None = None,
) -> None:
    """Polls, handles, commits, until stop is set; then the batch in hand is finished and the call returns.

    room: how many messages may be taken now (executors: free slots); at 0 the loop stays a member, takes nothing, and waits in
    wait_for_room(seconds). Offsets are committed only after handle() has returned and the dead letters are acknowledged.
    While TryLater lasts the same batch is tried again, after waits that grow from 0.1 s to 10 s, and the consumer stays a
    member of its group. A batch that cannot be done before stop is set is left to the next member.
    Raises whatever else handle() raises.
    """
    lag = _Lag(consumer, group)
    backoff = _Backoff(consumer, lag, health, stop)
    while not stop.is_set():
        health.turn()
        lag.measure()
        free = max_records if room is None else min(room(), max_records)
        if free <= 0:
            _idle(consumer, backoff, wait_for_room)
            continue
        try:
            batch = consumer.poll(poll_s, free)
            health.ready("kafka", True)
        except TryLater as error:
            health.ready("kafka", False, error.reason)
            stop.wait(TURN_S)  # no longer: the client backs off by itself, and is to be back as soon as the broker is
            continue
        if batch:
            _until_done(lambda batch=batch: _one(consumer, step, batch, dead_letters, group), backoff, stop)  # type: ignore[misc]
        backoff.reset()


def until_ready(work: Callable[[], None], health: Health, name: str, stop: threading.Event) -> None:
    """Does the work (a migration, making topics) until it succeeds; waits while TryLater is raised; returns early on stop."""
    wait = FIRST_WAIT_S
    while not stop.is_set():
        health.turn()
        try:
            work()
            health.ready(name, True)
            return
        except TryLater as error:
            health.ready(name, False, error.reason)
            log.warning("waiting", dependency=name, reason=error.reason)
            stop.wait(max(wait, error.after_s))
            wait = min(wait * 2, LONGEST_WAIT_S)


def _one(consumer: Consumer, step: Step, batch: Sequence[Message], dead_letters: Producer, group: str) -> None:
    rejected = step.handle(batch)
    for one in rejected:
        _send_letter(dead_letters, _letter(one, group))
    if rejected:
        dead_letters.flush(FLUSH_S)
    consumer.commit(batch)
    for one in rejected:
        place = f"{one.message.topic}/{one.message.partition}/{one.message.offset}"
        log.error("dead letter", message=place, reason=one.reason)
    metrics.dead_letters_total.inc(len(rejected))
    bad = {(one.message.topic, one.message.partition, one.message.offset) for one in rejected}
    for message in batch:
        outcome = "rejected" if (message.topic, message.partition, message.offset) in bad else "consumed"
        metrics.messages_total.labels(topic=message.topic, outcome=outcome).inc()


def _letter(rejected: Rejected, group: str) -> DeadLetter:
    m = rejected.message
    return DeadLetter(
        m.topic,
        m.partition,
        m.offset,
        m.key,
        m.value,
        m.headers,
        group,
        rejected.reason[:LONGEST_REASON],
        time.time_ns(),
    )


def _send_letter(dead_letters: Producer, letter: DeadLetter) -> None:
    headers = [("content-type", AVRO_TYPE), ("ce_type", b"eventproc.dead_letter")]
    key = letter.topic.encode()
    try:
        dead_letters.send(DEAD_LETTERS, encode("dead_letter", to_plain(letter)), key=key, headers=headers)
    except InvalidMessage:  # a compressed batch may hold messages far above the limit
        size = len(letter.value or b"")
        short = dataclasses.replace(
            letter,
            key=(letter.key or b"")[:KEPT_BYTES],
            value=(letter.value or b"")[:KEPT_BYTES],
            headers=(),
            reason=f"{letter.reason} [of its {size} bytes only the first {KEPT_BYTES} are kept, and no headers]",
        )
        dead_letters.send(DEAD_LETTERS, encode("dead_letter", to_plain(short)), key=key, headers=headers)


def _until_done(work: Callable[[], None], backoff: _Backoff, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            work()
            backoff.health.ready("work", True)
            return
        except TryLater as error:
            backoff.wait(error)


def _idle(consumer: Consumer, backoff: _Backoff, wait_for_room: Callable[[float], None] | None) -> None:
    """No room: stays a member without taking anything."""
    consumer.pause_all()
    try:
        consumer.poll(0, 1)
        backoff.health.ready("kafka", True)
    except TryLater as error:
        backoff.health.ready("kafka", False, error.reason)
    if wait_for_room is not None:
        wait_for_room(TURN_S)
    consumer.resume_all()


class _Lag:
    """Keeps the metric of how far the consumer is behind."""

    def __init__(self, consumer: Consumer, group: str) -> None:
        self._consumer = consumer
        self._group = group
        self._next = 0.0

    def measure(self) -> None:
        """Asks the broker every few seconds; a broker that is away leaves the figures as they were."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LAG_EVERY_S
        try:
            for topic, behind in self._consumer.lag().items():
                metrics.consumer_lag.labels(group=self._group, topic=topic).set(behind)
        except TryLater as error:
            log.debug("lag not known", reason=error.reason)


class _Backoff:
    """Waits that grow, with jitter, while the consumer stays a member of its group."""

    def __init__(self, consumer: Consumer, lag: _Lag, health: Health, stop: threading.Event) -> None:
        self.health = health
        self._consumer = consumer
        self._lag = lag
        self._stop = stop
        self._next_s = FIRST_WAIT_S

    def reset(self) -> None:
        self._next_s = FIRST_WAIT_S

    def wait(self, error: TryLater) -> None:
        """Blocks for the next wait, or as long as the error asks for; paused, polling, turning."""
        wait_s = max(self._next_s * random.uniform(0.8, 1.2), error.after_s)
        self._next_s = min(self._next_s * 2, LONGEST_WAIT_S)
        self.health.ready("work", False, error.reason)
        log.warning("trying again later", reason=error.reason, wait_s=round(wait_s, 2))
        until = time.monotonic() + wait_s
        self._consumer.pause_all()
        while not self._stop.is_set() and time.monotonic() < until:
            self.health.turn()
            self._lag.measure()
            try:
                self._consumer.poll(0, 1)
                self.health.ready("kafka", True)
            except TryLater as still:
                self.health.ready("kafka", False, still.reason)
            self._stop.wait(min(TURN_S, max(0.0, until - time.monotonic())))
        self._consumer.resume_all()
