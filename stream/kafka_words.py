"""What the Kafka client says, in our words: which of its errors time heals (all others stop the process), its records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kafka import errors as kafka_errors

from schemas.errors import TryLater
from stream.kafka_records import NotRead
from stream.messages import Message

MOVED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
"""A commit is refused with one of these when partitions have gone, or may be going, to another member."""

HEALS = (
    kafka_errors.RetriableError,
    kafka_errors.UnrecognizedBrokerVersion,
    kafka_errors.InvalidReceiveError,  # somebody else answers at the broker's address while it is away: a proxy, say
    kafka_errors.BrokerNotAvailableError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    OSError,
)
"""What time, or an operator, heals without a restart of ours."""

LOST_COUNT = (
    kafka_errors.OutOfOrderSequenceNumberError,
    kafka_errors.UnknownProducerIdError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.ProducerFencedError,
)
"""The broker and an idempotent producer disagree about what was sent: a new producer starts to count anew."""


def explained(error: BaseException) -> str:
    """One line for a person: the error's class and what it says, once."""
    text, kind = str(error), type(error).__name__
    return f"kafka: {text}" if text.startswith(kind) else f"kafka: {kind}: {text}"


@contextlib.contextmanager
def consequences() -> Iterator[None]:
    """Turns what time heals into TryLater; lets the rest through."""
    try:
        yield
    except HEALS as error:
        raise TryLater(explained(error)) from error


def message_of(record: Any) -> Message:
    """A message from the client's record."""
    place = (record.topic, record.partition, record.offset)
    if isinstance(record.headers, NotRead):
        why = record.headers
        return Message(*place, None, record.value, (), record.timestamp, why.reason, why.damaged)
    headers = tuple((name, value if value is not None else b"") for name, value in record.headers)
    return Message(*place, record.key, record.value, headers, record.timestamp)
