"""A message that cannot be read -> a dead letter: its bytes, its origin, the reason; and back, for an operator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.encoding import AVRO_TYPE, decode, encode
from schemas.errors import InvalidMessage
from schemas.records import DeadLetter, dead_letter_from, to_plain
from schemas.topics import DEAD_LETTERS
from stream.broker import Admin, Producer
from stream.messages import BATCH, Message
from stream.schema_book import SchemaBook

LONGEST_REASON = 10_000
KEPT_BYTES = 1024 * 1024  # of a message that is too large for a dead letter
_CUT_END = f" bytes only the first {KEPT_BYTES} are kept, and no headers]"


@dataclass(frozen=True)
class Rejected:
    """A message that can never be read, and why."""

    message: Message
    reason: str


def why_not_again(letter: DeadLetter) -> str:
    """Why the letter's message cannot be sent again; '' when it can."""
    if letter.topic == DEAD_LETTERS:
        return "no dead letter of ours"
    if letter.reason.startswith(BATCH):
        return "it holds a batch of messages as the broker had it: whoever sent them sends them again"
    return "its bytes were too many to be kept whole" if letter.reason.endswith(_CUT_END) else ""


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


@dataclass(frozen=True)
class Kept:
    """A dead letter and its number, which is its offset in eventproc.dead-letters."""

    number: int
    letter: DeadLetter

    @property
    def origin(self) -> str:
        """Where the message was: topic/partition/offset."""
        return f"{self.letter.topic}/{self.letter.partition}/{self.letter.offset}"


def read_letters(admin: Admin, book: SchemaBook, first: int = 0, since_ms: int = 0) -> Iterator[Kept]:
    """The dead letters from the number first on and made since then, the oldest first. Blocks; raises TryLater.

    Something else in their topic comes as a letter of its own, whose origin is that topic.
    """
    for message in admin.read(DEAD_LETTERS, since_ms, {0: first}):
        if not message.unreadable:
            book.missing(
                message
            )  # one that another release, or one with a Schema Registry, has written: learns its schema
        try:
            letter = dead_letter_from(decode("dead_letter", message.value, message.headers))
        except (InvalidMessage, ValueError) as error:
            letter = DeadLetter(
                DEAD_LETTERS, message.partition, message.offset, message.key, message.value, message.headers, "",
                f"not a dead letter of ours: {error}", message.timestamp_ms * 1_000_000,
            )  # fmt: skip
        yield Kept(message.offset, letter)
