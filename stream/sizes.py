"""How large a message may be, by topic: one setting for topics, producers and consumers alike."""

from __future__ import annotations

from schemas.topics import DEAD_LETTERS

KIB = 1024
MIB = 1024 * KIB
OVERHEAD_BYTES = 64 * KIB  # headers, key and the record batch around a value
UNPACKED_TIMES = 8  # a batch may be far smaller than what it holds
ENVELOPE_BYTES = MIB  # what a dead letter says around the message that it holds


def value_limit(topic: str, max_message_bytes: int) -> int:
    """The largest value in bytes that may be sent to the topic; a dead letter has room for any other topic's message."""
    return max_message_bytes + (ENVELOPE_BYTES if topic == DEAD_LETTERS else 0)


def unpacked_limit(max_message_bytes: int) -> int:
    """Up to which a compressed batch is unpacked."""
    return UNPACKED_TIMES * max_message_bytes


def batch_limit(topic: str, max_message_bytes: int) -> int:
    """The topic's max.message.bytes, which Kafka applies to whole record batches."""
    return value_limit(topic, max_message_bytes) + OVERHEAD_BYTES
