"""What stands in a batch that cannot be read comes as a message that says why; what stands before and behind it comes, too."""

from __future__ import annotations

import gzip
import struct

import pytest
import snappy
from kafka import TopicPartition
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from stream.kafka_records import CODECS, _Partition, unpacked
from stream.kafka_words import message_of
from stream.messages import BATCH, Message

PLACE = TopicPartition("topic", 0)
MOST = 1_000_000
HEAD = DefaultRecordBatch.HEADER_STRUCT.size


class Named(str):
    """A header's name that is not UTF-8 when it is written."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe" + super().encode(encoding, errors)


def batch(*values: bytes, codec: int = 0, offset: int = 0, header: str = "h") -> bytearray:
    """A record batch as a broker gives it out."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    for number, value in enumerate(values):
        builder.append(number, 1000, b"key", value, [(header, b"v")])
    made = bytearray(builder.build())
    made[:8] = offset.to_bytes(8, "big")
    return made


def sealed(made: bytearray) -> bytearray:
    """The same with its length and checksum set right: so it was sent."""
    made[8:12] = struct.pack(">i", len(made) - 12)
    made[17:21] = struct.pack(">I", calc_crc32c(memoryview(made)[21:]))
    return made


def packed_as(codec: int, body: bytes) -> bytearray:
    """A batch of two at offset 2 that says it is compressed by the codec."""
    made = batch(b"c", b"d", offset=2)
    made[22] = codec
    return sealed(made[:HEAD] + body)


def taken(*batches: bytearray, at: int = 0) -> list[Message]:
    """What a consumer gets of them, who fetches from the offset at."""
    partition = _Partition(MOST, at, PLACE, MemoryRecords(b"".join(batches)))
    return [message_of(record) for record in partition.take(None)]


@pytest.mark.parametrize("codec", [0, *CODECS])
def test_messages_come_as_they_were_sent_by_whatever_codec(codec: int) -> None:
    values = [b"x" * 100_000, b"", b"y"]

    found = taken(batch(*values, codec=codec))

    assert [m.value for m in found] == values
    assert {(m.key, m.headers, m.timestamp_ms, m.unreadable) for m in found} == {(b"key", (("h", b"v"),), 1000, "")}
    assert [m.offset for m in taken(batch(*values, codec=codec), at=1)] == [1, 2]


def test_snappy_is_read_with_and_without_javas_framing() -> None:
    assert unpacked(2, snappy.compress(b"abc" * 1000), MOST) == b"abc" * 1000


@pytest.mark.parametrize("codec", [0, *CODECS])
def test_a_header_whose_name_is_not_utf_8_does_no_harm(codec: int) -> None:
    (found,) = taken(batch(b"a", codec=codec, header=Named("h")))

    assert (found.value, found.headers, found.unreadable) == (b"a", (("\ufffd\ufffdh", b"v"),), "")


def a_bomb(codec: int) -> bytearray:
    return sealed(batch(bytes(2 * MOST), codec=codec, offset=2))


WRONG: dict[str, tuple[bytearray, str]] = {
    "a codec that nobody knows": (packed_as(5, b"rubbish"), "only gzip, snappy, lz4, zstd are known here"),
    "gzip cut short": (packed_as(1, gzip.compress(bytes(range(256)) * 20)[:-30]), "it is cut short"),
    "records that are none": (sealed(batch(b"c", b"d", offset=2)[:-4]), "CorruptRecordError"),
    **{f"{name} that is none": (packed_as(codec, b"\1\2\3rubbish"), f"compressed by {name}") for codec, name in CODECS.items()},
    **{f"a bomb of {name}": (a_bomb(codec), "it holds more than 1000000 bytes") for codec, name in CODECS.items()},
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_batch_that_cannot_be_read_is_one_message_that_says_why_and_the_next_one_comes(wrong: str) -> None:
    bad, says = WRONG[wrong]
    last = 2 + struct.unpack(">i", bad[23:27])[0]

    before, found, behind = taken(batch(b"a", offset=1), bad, batch(b"e", offset=last + 1), at=1)

    assert (before.value, behind.value) == (b"a", b"e")
    assert (found.offset, found.value, found.damaged) == (last, bytes(bad), False)
    assert found.unreadable.startswith(BATCH) and says in found.unreadable


def test_a_batch_that_is_not_as_it_was_sent_is_told_apart_and_nothing_behind_it_is_passed_over() -> None:
    bad = batch(b"c", b"d", offset=2)
    bad[-1] ^= 1

    before, found = taken(batch(b"a", offset=1), bad, batch(b"e", offset=4), at=1)

    assert before.value == b"a"
    assert (found.offset, found.damaged) == (2, True)
    assert "its checksum is wrong" in found.unreadable


def test_what_has_no_room_for_a_batchs_head_is_not_as_it_was_sent() -> None:
    (found,) = taken(bytearray(struct.pack(">qiib", 3, 30, 0, 2) + bytes(25)), at=3)

    assert (found.offset, found.damaged) == (3, True)
