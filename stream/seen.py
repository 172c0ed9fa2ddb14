"""Events that a group is done with and that are nowhere: neither known to the ledger nor among the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from schemas.errors import InvalidMessage
from schemas.events import read_event
from stream.broker import Admin
from stream.letters import read_letters
from stream.messages import Message
from stream.schema_book import SchemaBook

AT_ONCE = 500


@dataclass(frozen=True)
class Lost:
    """A message of a hook's topic that nobody knows of. request_id: '' when the message cannot be read; reason: why not."""

    topic: str
    partition: int
    offset: int
    request_id: str
    reason: str = ""

    def __str__(self) -> str:
        place = f"{self.topic}/{self.partition}/{self.offset}"
        return (
            f"{place}: RequestID {self.request_id}" if self.request_id else f"{place}: cannot be read ({self.reason})"
        )


Unknown = Callable[[Sequence[str]], Iterable[str]]


def lost_events(
    admin: Admin,
    book: SchemaBook,
    hook: str,
    group: str,
    unknown: Unknown,
    since_ms: int = 0,
    start: Mapping[int, int] = MappingProxyType({}),
) -> tuple[list[Lost], Mapping[int, int]]:
    """Reads the hook's topic up to what the group has committed; what of it is lost, and up to where it was read.

    group: the dispatchers'; unknown: those of some RequestIDs that the ledger has no event for; since_ms, start: where to
    begin, as for Admin.read. Blocks as long as reading takes; raises TryLater.
    """
    upto = admin.committed(group, hook)  # first: what was committed by now is in the ledger or among the dead letters
    found: list[Lost] = []
    batch: list[Lost] = []
    for message in admin.read(hook, since_ms, start):
        if message.offset >= upto.get(message.partition, 0):
            continue
        one = _read(book, message)
        if one.request_id:
            batch.append(one)
        else:
            found.append(one)
        if len(batch) == AT_ONCE:
            found.extend(_without(unknown, batch))
            batch = []
    found.extend(_without(unknown, batch))
    if found:  # seldom, so the letters are read for it alone
        dead = {(kept.letter.topic, kept.letter.partition, kept.letter.offset) for kept in read_letters(admin, book)}
        found = [one for one in found if (one.topic, one.partition, one.offset) not in dead]
    return found, upto


def _read(book: SchemaBook, message: Message) -> Lost:
    place = (message.topic, message.partition, message.offset)
    if message.unreadable:
        return Lost(*place, "", message.unreadable)
    book.missing(message)
    try:
        return Lost(*place, read_event(message.topic, message.value, message.headers).request_id)
    except InvalidMessage as error:
        return Lost(*place, "", error.reason)


def _without(unknown: Unknown, batch: Sequence[Lost]) -> list[Lost]:
    missing = set(unknown([one.request_id for one in batch])) if batch else set()
    return [one for one in batch if one.request_id in missing]
