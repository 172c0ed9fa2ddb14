"""What a broker can do for a station; kafka.py is the real one, memory.py the fake that passes the same tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from schemas.topics import Topic
from stream.messages import Message, Place

Headers = Sequence[tuple[str, bytes]]


class Producer(Protocol):
    """Sends messages; may be used by several threads."""

    def send(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> None:
        """Queues a message; messages of one key keep their order.

        Blocks only while connecting, or while the topic's partitions are being looked up; at most for
        the request timeout. Raises InvalidMessage when it is larger than allowed, TryLater when the broker is away.
        """

    def flush(self, timeout_s: float) -> None:
        """Blocks until all that this thread sent since its last flush is acknowledged by all in-sync replicas.

        Raises TryLater when that does not happen within timeout_s, or was refused for now: the caller sends the same again
        (some of it may arrive twice). Raises InvalidMessage when the topic takes only smaller ones. Either way what this
        thread sent before is forgotten.
        """

    def close(self) -> None:
        """Gives up what is not acknowledged yet."""


class Consumer(Protocol):
    """One member of a consumer group; for one thread."""

    def poll(self, timeout_s: float, max_records: int) -> list[Message]:
        """The next messages, at most max_records; blocks until there is one or the time is over.

        Has to be called within the max poll interval for this to stay a member. Raises TryLater when the broker is away.
        """

    def commit(self, upto: Sequence[Message]) -> None:
        """Commits, per partition, the offset after the last of these messages; blocks.

        Of partitions that have gone to another member meanwhile nothing is committed: it gets those messages again. What
        cannot be committed because the group is rebalancing is committed by a later poll(). Raises TryLater.
        """

    def pause_all(self) -> None:
        """From now on poll() returns nothing but stays a member; partitions that come later are paused too."""

    def resume_all(self) -> None:
        """Ends pause_all()."""

    def hold(self, first: Message) -> None:
        """From now on poll() gives nothing of this message's partition; after release() it goes on with this message.

        A partition that goes to another member is no longer held. One that is not ours is left alone.
        """

    def release(self, place: Place) -> None:
        """Ends hold() for the partition."""

    def mark(self, first: Message, note: str) -> None:
        """Keeps a note (up to 4,000 bytes) with the committed offset, which becomes this message's; blocks. Raises TryLater.

        The next commit() of the partition clears it. Nothing happens when the partition has gone to another member.
        """

    def note(self, place: Place) -> str:
        """The note that was left with the partition's committed offset, by whomever; '' when there is none. Raises TryLater."""

    def assignment(self) -> frozenset[Place]:
        """The (topic, partition) pairs that this member has."""

    def lag(self) -> Mapping[str, int]:
        """By topic, the messages in this member's partitions that it has not given out yet; blocks. Raises TryLater."""

    def close(self) -> None:
        """Leaves the group (a static member keeps its place in it until its session ends); blocks shortly."""


class Admin(Protocol):
    """Topics and offsets. Every call blocks and raises TryLater when the broker is away."""

    def ensure_topics(self, topics: Sequence[Topic], replication: int, max_message_bytes: int) -> None:
        """Makes those that are missing; of those that exist raises a message size that is too small."""

    def keep(self, topic: str, retention_ms: int) -> None:
        """The topic keeps its messages for so long, -1: for ever. A topic that does not exist is TryLater."""

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        """The next offset of each partition. A topic that does not exist is TryLater: somebody is about to make it."""

    def read(self, topic: str, since_ms: int = 0, start: Mapping[int, int] = MappingProxyType({})) -> Iterator[Message]:
        """All that the topic holds now, each partition in order, in no group. A topic that does not exist is TryLater.

        since_ms: from the first message on with such a timestamp or a later one; start: by partition, no offset before it.
        """

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """What the group has committed, by partition; a partition without a commit is absent."""

    def begin_at_end(self, group: str, topics: Sequence[str]) -> None:
        """A group without members begins at these topics' present ends where it has committed nothing yet.

        Topics that do not exist are passed over: all that comes to them later is the group's.
        """

    def lag(self, group: str, topic: str) -> int:
        """Messages that the group has not committed yet."""

    def ping(self) -> None:
        """Returns when the broker answers."""


class Broker(Protocol):
    """The way to the topics."""

    def producer(self) -> Producer:
        """A producer: idempotent, acknowledged by all in-sync replicas, no lingering."""

    def consumer(self, topics: Sequence[str], group: str, *, instance: str | None = None) -> Consumer:
        """A member of the group: earliest, no auto-commit, cooperative-sticky; instance: for static membership (KIP-345)."""

    def admin(self) -> Admin:
        """Topics and offsets."""

    def close(self) -> None:
        """Closes all that came from here."""
