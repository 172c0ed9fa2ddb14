"""A message that cannot be read -> a dead letter: its bytes, its origin, the reason."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from schemas.encoding import AVRO_TYPE, encode
from schemas.errors import InvalidMessage
from schemas.records import DeadLetter, to_plain
from schemas.topics import DEAD_LETTERS
from stream.broker import Producer
from stream.messages import Message

LONGEST_REASON = 10_000
KEPT_BYTES = 1024 * 1024  # of a message that is too large for a dead letter
_CUT_END = f" bytes only the first {KEPT_BYTES} are kept, and no headers]"


@dataclass(frozen=True)
class Rejected:
    """A message that can never be read, and why."""

    message: Message
    reason: str


def is_whole(letter: DeadLetter) -> bool:
    """Whether the letter holds its message whole, so that it may be sent again."""
    return not letter.reason.endswith(_CUT_END)


def send_letter(dead_letters: Producer, rejected: Rejected, group: str) -> None:
    """Sends the dead letter of a message that this group could not read; the caller flushes. Raises TryLater."""
    m = rejected.message
    reason = rejected.reason[:LONGEST_REASON]
    letter = DeadLetter(m.topic, m.partition, m.offset, m.key, m.value, m.headers, group, reason, time.time_ns())
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
            reason=f"{letter.reason} [of its {size}{_CUT_END}",
        )
        dead_letters.send(DEAD_LETTERS, encode("dead_letter", to_plain(short)), key=key, headers=headers)
