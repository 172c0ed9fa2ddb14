"""Messages on which a process has stopped: remembered with the group's offsets, found one by one, and put aside.

Nothing that a process keeps in itself outlives its stop, so the memory is the metadata of the committed offset (Kafka keeps up
to 4 KiB with each; offset.metadata.max.bytes). It says: at this offset, up to that one, a process stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import structlog

from stream.broker import Consumer
from stream.letters import Rejected
from stream.messages import Message, Place

log = structlog.get_logger()

RAISED_AT_MOST = 2
DIED_AT_MOST = (
    5  # a process that vanishes without a word was mostly killed from outside: the message is seldom to blame
)


@dataclass(frozen=True)
class Note:
    """upto: the last suspect offset; raised, died: how often a process stopped while it had the first of them alone in hand,
    by an error or without a word; error: what was raised last."""

    upto: int
    raised: int = 0
    died: int = 0
    error: str = ""

    def text(self) -> str:
        """As it is kept with the offset."""
        return json.dumps(asdict(self))


def note_from(text: str) -> Note | None:
    """The note in an offset's metadata; None when it holds none (or another program's)."""
    try:
        plain = json.loads(text)
        return Note(int(plain["upto"]), int(plain["raised"]), int(plain["died"]), str(plain["error"]))
    except (ValueError, KeyError, TypeError):
        return None


class Suspects:
    """Splits batches so that a suspect message is handled alone, and tells when one has stopped too many processes.

    A partition's first batch in this process is noted before it is begun: if the process vanishes, the next one finds the note.
    Later batches are noted only when an error is raised, which costs nothing while all is well.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._notes: dict[Place, Note | None] = {}  # of partitions that have been looked at; None: nothing suspect
        self._marked: dict[Place, tuple[Message, Note]] = {}  # noted with the offset now, for the batch in hand

    def parts(self, batch: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """The batch in the parts in which it is to be handled: what stands in partitions without a suspect, each suspect message
        alone, then what stands behind those. An offset committed says that all before it is done, so nothing overtakes a suspect.

        Raises TryLater when a note has to be read and the broker is away; nothing has been given out then.
        """
        ours = self._consumer.assignment()
        for place in set(self._notes) - ours:
            del self._notes[place]
        together: list[Message] = []
        alone: list[Message] = []
        behind: list[Message] = []
        suspected: set[Place] = set()
        for message in batch:
            place = (message.topic, message.partition)
            note = self._notes.get(place)
            if note is not None and message.offset <= note.upto:
                suspected.add(place)
                alone.append(message)
            else:
                (behind if place in suspected else together).append(message)
        if together:
            yield together
        for message in alone:
            yield [message]
        if behind:
            yield behind

    def look(self, batch: Sequence[Message]) -> None:
        """Reads the notes of the batch's partitions that are new to this process, and leaves a note there. Raises TryLater."""
        for place, messages in _by_place(batch).items():
            if place in self._notes:
                continue
            found = note_from(self._consumer.note(place))
            if found is not None and found.upto >= messages[0].offset:
                self._notes[place] = found
                log.warning("a process stopped here before", partition=place, offset=messages[0].offset, note=found)
            else:
                self._mark(messages[0], Note(messages[-1].offset))
                self._notes[place] = None

    def begin(self, part: Sequence[Message]) -> Rejected | None:
        """Before a part is handled: the one message of it that must not be handled any more, or None. Raises TryLater."""
        first = part[0]
        place = (first.topic, first.partition)
        note = self._notes.get(place)
        if note is None or first.offset > note.upto:
            return None
        if note.raised >= RAISED_AT_MOST or note.died >= DIED_AT_MOST:
            how = (
                f"{note.raised} times by an error ({note.error})"
                if note.raised
                else f"{note.died} times without a word"
            )
            return Rejected(first, f"processes stopped on this message, {how}: it is put aside unhandled")
        if place not in self._marked:
            self._mark(first, replace(note, died=note.died + 1))
        return None

    def stopped(self, part: Sequence[Message], error: BaseException) -> None:
        """An error is about to stop the process: leaves a note with each partition of the part."""
        for place, messages in _by_place(part).items():
            note = self._notes.get(place)
            if note is None or messages[0].offset > note.upto:
                note = Note(messages[-1].offset)
            if len(part) == 1:
                note = replace(note, raised=note.raised + 1, error=f"{type(error).__name__}: {error}"[:500])
            self._mark(messages[0], note)

    def done(self, part: Sequence[Message]) -> None:
        """The part has been committed, and its notes with it: the next suspect has a clean sheet."""
        for place, messages in _by_place(part).items():
            self._marked.pop(place, None)
            note = self._notes.get(place)
            if note is not None:
                self._notes[place] = Note(note.upto) if messages[-1].offset < note.upto else None

    def leave(self) -> None:
        """The process ends in good order with work in hand: that is no stop, so the notes of it are taken back."""
        for place, (message, note) in list(self._marked.items()):
            before = self._notes.get(place)
            self._consumer.mark(message, before.text() if before is not None and note.raised == before.raised else "")
        self._marked.clear()

    def _mark(self, message: Message, note: Note) -> None:
        self._consumer.mark(message, note.text())
        self._marked[(message.topic, message.partition)] = (message, note)


def _by_place(batch: Sequence[Message]) -> dict[Place, list[Message]]:
    places: dict[Place, list[Message]] = {}
    for message in batch:
        places.setdefault((message.topic, message.partition), []).append(message)
    return places
