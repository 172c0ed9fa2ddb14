"""The processing loop of every station, and the one place where an error becomes its consequence.

InvalidMessage -> dead letter; TryLater -> back off, then the same batch; anything else -> the process stops.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from schemas.errors import TryLater
from stream.broker import Consumer, Producer
from stream.hold import Holds
from stream.letters import Rejected, send_letter
from stream.messages import Message, Place
from stream.poison import Suspects
from stream.schema_book import SchemaBook
from stream.share import Share
from telemetry import metrics
from telemetry.health import Health

log = structlog.get_logger()

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 10.0
TURN_S = 0.1
FLUSH_S = 30.0
LAG_EVERY_S = 5.0


@dataclass(frozen=True)
class Limits:
    """When a message, or a partition, is given up. Times in seconds.

    unreadable_share of the last unreadable_window messages: above it a partition is held, and looked at again every held_s.
    """

    unreadable_share: float = 0.5
    unreadable_window: int = 100
    held_s: float = 60.0
    schema_look_s: float = 1.0


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
    book: SchemaBook | None = None,
    limits: Limits = Limits(),
) -> None:
    """Polls, handles, commits, until stop is set; then the batch in hand is finished and the call returns.

    room: how many messages may be taken now (executors: free slots); at 0 the loop stays a member, takes nothing, and waits in
    wait_for_room(seconds). Offsets are committed only after handle() has returned and the dead letters are acknowledged.
    While TryLater lasts the same batch is tried again, after waits that grow from 0.1 s to 10 s, and the consumer stays a
    member of its group. A batch that cannot be done before stop is set is left to the next member.
    book: where schemas are looked up that are not known here; without one such a message is a dead letter at once.
    Raises whatever else handle() raises; the messages in hand are then suspect, see stream/poison.py.
    """
    lag = _Lag(consumer, group)
    backoff = _Backoff(consumer, lag, health, stop)
    work = _Work(consumer, step, dead_letters, group, Holds(consumer, health), book, limits)
    while not stop.is_set():
        health.turn()
        lag.measure()
        work.holds.turn()
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
        work.take(batch)
        while work.left and not stop.is_set():
            _once(work, backoff)
        backoff.reset()
    work.leave()


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


class _Work:
    """The batch in hand, part by part, through schemas, suspicion, the step, judgement and commit."""

    def __init__(
        self,
        consumer: Consumer,
        step: Step,
        dead_letters: Producer,
        group: str,
        holds: Holds,
        book: SchemaBook | None,
        limits: Limits,
    ) -> None:
        self.holds = holds
        self.left: list[Callable[[], None]] = []
        self._consumer = consumer
        self._step = step
        self._dead_letters = dead_letters
        self._group = group
        self._book = book
        self._limits = limits
        self._suspects = Suspects(consumer)
        self._share = Share(limits.unreadable_window, limits.unreadable_share)

    def take(self, batch: Sequence[Message]) -> None:
        """A batch has come; left is what has to be done with it, in order. Every piece may be done again."""
        self.left = [lambda: self._sort(batch)] if batch else []

    def leave(self) -> None:
        """Nothing more is done with the batch in hand, or not for now: no stop of the process is to be suspected of it."""
        try:
            self._suspects.leave()
        except TryLater as error:
            log.info("notes not taken back", reason=error.reason)

    def _sort(self, batch: Sequence[Message]) -> None:
        known = self._ready(batch)
        self._suspects.look(known)
        self.left.extend(lambda part=part: self._handle(part) for part in self._suspects.parts(known))  # type: ignore[misc]

    def _ready(self, batch: Sequence[Message]) -> Sequence[Message]:
        if self._book is not None:
            self._book.batch()
        known: list[Message] = []
        waiting: set[Place] = set()
        for message in batch:
            place = (message.topic, message.partition)
            if place in waiting:
                if self._book is not None and not message.unreadable:
                    self._book.meet(message)
                continue
            reason, for_s = self._why_not_yet(message)
            if reason:
                waiting.add(place)
                self.holds.hold(message, for_s, reason)
            else:
                known.append(message)
        return known

    def _why_not_yet(self, message: Message) -> tuple[str, float]:
        """Why its partition is to be held with it, and for how long; '' when it may be handled."""
        if message.unreadable:
            return (message.unreadable if message.damaged else ""), self._limits.held_s
        return (self._book.missing(message) if self._book is not None else ""), self._limits.schema_look_s

    def _handle(self, part: Sequence[Message]) -> None:
        poison = self._suspects.begin(part)
        try:
            rejected = [poison] if poison is not None else self._handled(part)
        except TryLater:
            raise
        except Exception as error:
            log.exception("the process stops", messages=[f"{m.topic}/{m.partition}/{m.offset}" for m in part[:10]])
            try:
                self._suspects.stopped(part, error)
            except TryLater as away:
                log.warning("what the process stopped on could not be noted", reason=away.reason)
            raise
        judged = self._share.judge(part, rejected)
        for one in judged.letters:
            send_letter(self._dead_letters, one, self._group)
        if judged.letters:
            self._dead_letters.flush(FLUSH_S)
        if judged.done:
            self._consumer.commit(judged.done)
        self._suspects.done(part)
        self._share.note(judged)
        for one in judged.stopped:
            self.holds.hold(one.message, self._limits.held_s, one.reason)
        _tell(judged.done, judged.letters)

    def _handled(self, part: Sequence[Message]) -> Sequence[Rejected]:
        unread = [Rejected(message, message.unreadable) for message in part if message.unreadable]
        if not unread:
            return self._step.handle(part)
        read = [message for message in part if not message.unreadable]
        return [*unread, *(self._step.handle(read) if read else ())]


def _tell(done: Sequence[Message], letters: Sequence[Rejected]) -> None:
    for one in letters:
        place = f"{one.message.topic}/{one.message.partition}/{one.message.offset}"
        log.error("dead letter", message=place, reason=one.reason)
    metrics.dead_letters_total.inc(len(letters))
    bad = {(one.message.topic, one.message.partition, one.message.offset) for one in letters}
    for message in done:
        outcome = "rejected" if (message.topic, message.partition, message.offset) in bad else "consumed"
        metrics.messages_total.labels(topic=message.topic, outcome=outcome).inc()


def _once(work: _Work, backoff: _Backoff) -> None:
    """The next piece of work: done and gone, or put off and still there."""
    try:
        work.left[0]()
        backoff.health.ready("work", True)
        work.left.pop(0)
    except TryLater as error:
        work.leave()
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
