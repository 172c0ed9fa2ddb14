"""How many of a partition's recent messages were unreadable: above a share it is a bad deploy, not bad messages."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from stream.letters import Rejected
from stream.messages import Message, Place


@dataclass(frozen=True)
class Judged:
    """done: messages whose offsets may be committed; letters: those of them that go to the dead letters;
    stopped: the first message of each partition that is not to go on, with the reason."""

    done: tuple[Message, ...]
    letters: tuple[Rejected, ...]
    stopped: tuple[Rejected, ...]


class Share:
    """The last window messages of each partition, since this process began."""

    def __init__(self, window: int, share: float) -> None:
        """window: messages, at least 100; share: 0..1, above which a partition stops; 1 never stops one."""
        self._window = window
        self._share = share
        self._recent: dict[Place, deque[bool]] = defaultdict(lambda: deque(maxlen=window))

    def judge(self, batch: Sequence[Message], rejected: Sequence[Rejected]) -> Judged:
        """Which of a handled batch may be done with. Changes nothing: a batch may be judged again."""
        bad = {_at(one.message): one for one in rejected}
        recent: dict[Place, deque[bool]] = {}
        done: list[Message] = []
        letters: list[Rejected] = []
        stopped: dict[Place, Rejected] = {}
        for message in batch:
            place = (message.topic, message.partition)
            if place in stopped:
                continue
            seen = recent.setdefault(place, deque(self._recent[place], self._window))
            one = bad.get(_at(message))
            seen.append(one is not None)
            if one is not None and len(seen) == self._window and sum(seen) > self._share * self._window:
                stopped[place] = Rejected(message, self._why(sum(seen), one.reason))
                continue
            done.append(message)
            if one is not None:
                letters.append(one)
        return Judged(tuple(done), tuple(letters), tuple(stopped.values()))

    def note(self, judged: Judged) -> None:
        """The judgement has been carried out: what was done counts as recent."""
        bad = {_at(one.message) for one in judged.letters}
        for message in judged.done:
            self._recent[(message.topic, message.partition)].append(_at(message) in bad)

    def _why(self, count: int, reason: str) -> str:
        return (
            f"{count} of the last {self._window} messages cannot be read (more than the share of {self._share:g}): "
            f"a bad deploy of the producer, or of us? The last one: {reason}. "
            "To let them all go to the dead letters: EVENTPROC_KAFKA_UNREADABLE_SHARE=1 and a restart"
        )


def _at(message: Message) -> tuple[str, int, int]:
    return (message.topic, message.partition, message.offset)
