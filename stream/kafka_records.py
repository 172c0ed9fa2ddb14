"""Mends what kafka-python 3.0 makes of records that it cannot read: they come as messages that say why, and nothing stops.

Its fetcher raises out of poll(), in every process that gets the partition and for ever, when a batch is compressed in a way that
is not known here, when it is broken inside, and when a header's name is not UTF-8; and it unpacks whatever a batch of a few KiB
claims to hold. Here a batch is unpacked up to a limit; what is wrong with it then stands in Message.unreadable.
Whether a newer client still needs this: take the call out and run tests/stream/test_kafka_records.py.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import lz4.frame
import snappy
import zstandard
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch

from stream.messages import BATCH

CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
XERIAL = b"\x82SNAPPY\0"  # how snappy-java begins a stream of blocks; 8 bytes of versions follow


class NotRead(list[tuple[str, bytes]]):
    """Stands in place of a record's headers: the record's value is what could not be read. damaged: not as it was sent."""

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__()
        self.reason = reason
        self.damaged = damaged


def read_all(client: Any, most_bytes: int) -> None:
    """Makes this consumer give out what it cannot read; called once, before it is polled first.

    most_bytes: up to which a batch is unpacked.
    """
    client._fetcher.PartitionRecords = functools.partial(_Partition, most_bytes)


class _Partition(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What a fetch has brought of one partition."""

    def __init__(self, most_bytes: int, *given: Any, **named: Any) -> None:
        self.most_bytes = most_bytes
        super().__init__(*given, **named)

    def _unpack_records(self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any) -> Iterator[Any]:
        found: Iterator[Any] = super()._unpack_records(
            tp, _Batches(self, records), key_deserializer, value_deserializer
        )
        return found


class _Batches:
    """kafka-python's MemoryRecords, whose batches can all be iterated over; it ends after one that is damaged."""

    def __init__(self, partition: _Partition, records: Any) -> None:
        self._partition = partition
        self._records = records
        self._over = False

    def next_batch(self) -> Any:
        raw = self._records._next_slice
        if self._over or raw is None:
            return None
        try:
            batch = self._records.next_batch()
            sound = batch.validate_crc()
        except (KafkaError, struct.error):
            sound = False
        if sound:
            return _Batch(batch, bytes(raw), self._partition.most_bytes)
        # its length and offsets may be wrong as well: what stands behind it is not looked at
        self._over = True
        return _Damaged(bytes(raw), self._partition.next_fetch_offset)


class _Batch:
    """A batch that is as it was sent."""

    def __init__(self, batch: Any, raw: bytes, most_bytes: int) -> None:
        self._batch = batch
        self._raw = raw
        self._most_bytes = most_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """It has been looked at; in plain Python that takes longer than all else."""
        return True

    def __next__(self) -> Any:
        return next(self._batch)  # a control record is looked at so

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch) if self._batch.magic < 2 else _records(self._raw, self._most_bytes))
        except Exception as error:  # noqa: BLE001 - whatever a codec or the parser trips over is the batch's fault
            return iter([self._not_read(error)])

    def _not_read(self, error: BaseException) -> Any:
        batch = self._batch
        last = batch.last_offset if batch.magic == 2 else batch.base_offset
        count = f" ({batch.records_count}, up to offset {last})" if batch.magic == 2 else ""
        known = isinstance(error, (ValueError, KafkaError))
        why = str(error) if known else f"{type(error).__name__}: {error}"
        how = CODECS.get(batch.compression_type, f"codec {batch.compression_type}") if batch.compression_type else ""
        reason = f"{BATCH}{count}{', compressed by ' + how if how else ''}: {why}"
        return _stand_in(self._raw, last, batch.max_timestamp if batch.magic == 2 else -1, NotRead(reason))


class _Damaged:
    """A batch that is not as it was sent: the broker's storage, or the way from it. Not one of its figures is believed."""

    magic = 1  # then nothing but its records is looked at

    def __init__(self, raw: bytes, offset: int) -> None:
        reason = (
            "the broker gives out a batch that is not as it was sent (its checksum is wrong): let another replica lead, or, "
            "where none has it whole, set the group's offset behind it"
        )
        self._record = _stand_in(raw, offset, -1, NotRead(reason, damaged=True))

    def validate_crc(self) -> bool:
        """It has been looked at."""
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter([self._record])


def _stand_in(raw: bytes, offset: int, timestamp_ms: int, why: NotRead) -> Any:
    return DefaultRecord(len(raw), offset, timestamp_ms, 0, None, raw, why)


def _records(raw: bytes, most_bytes: int) -> list[Any]:
    """The batch's records, by kafka-python's own parser; raises whatever that or a codec does."""
    batch = DefaultRecordBatch(raw)
    at = batch.HEADER_STRUCT.size
    body = raw
    if batch.compression_type:
        at, body = 0, unpacked(batch.compression_type, raw[at:], most_bytes)
    try:
        return _parsed(batch, bytearray(body), at)
    except KafkaError:
        return _parsed(DefaultRecordBatch(raw), _Lenient(body), at)


def _parsed(batch: Any, body: bytearray, at: int) -> list[Any]:
    batch._buffer, batch._pos, batch._decompressed = body, at, True
    return list(batch)


class _Lenient(bytearray):
    """Of a record only the names of headers are decoded as text: here each has one, whatever its bytes."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Text(found) if isinstance(at, slice) else found


class _Text(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "replace")


def unpacked(codec: int, packed: bytes, most_bytes: int) -> bytes:
    """What was compressed by that codec of Kafka's; raises ValueError when it is more than most_bytes, else what the codec does."""
    if codec == 1:
        whole = _gunzipped(packed, most_bytes + 1)
    elif codec == 2:
        whole = _unsnapped(packed, most_bytes)
    elif codec == 3:
        whole = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=most_bytes + 1)
    elif codec == 4:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            whole = reader.read(most_bytes + 1)
    else:
        raise ValueError(f"only {', '.join(CODECS.values())} are known here")
    if len(whole) > most_bytes:
        raise _too_much(most_bytes)
    return whole


def _gunzipped(packed: bytes, most_bytes: int) -> bytes:
    found = bytearray()
    while packed and len(found) < most_bytes:  # one member after the other (RFC 1952, section 2.2)
        member = zlib.decompressobj(wbits=31)
        found += member.decompress(packed, most_bytes - len(found))
        if not member.eof and len(found) < most_bytes:
            raise ValueError("it is cut short")
        packed = member.unused_data
    return bytes(found)


def _unsnapped(packed: bytes, most_bytes: int) -> bytes:
    """snappy-java's stream of blocks (a length of 4 bytes before each), or one block as librdkafka writes it."""
    if not packed.startswith(XERIAL):
        if _length(packed) > most_bytes:
            raise _too_much(most_bytes)
        return bytes(snappy.decompress(packed))
    found, at = bytearray(), 16
    while at < len(packed):
        length = int.from_bytes(packed[at : at + 4], "big")
        block = packed[at + 4 : at + 4 + length]
        if len(found) + _length(block) > most_bytes:
            raise _too_much(most_bytes)
        found += snappy.decompress(block)
        at += 4 + length
    return bytes(found)


def _length(block: bytes) -> int:
    """What a block unpacks to, by its first bytes (snappy's format_description.txt, section 1)."""
    size = 0
    for place, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            break
    return size


def _too_much(most_bytes: int) -> ValueError:
    return ValueError(f"it holds more than {most_bytes} bytes (8 times EVENTPROC_MAX_MESSAGE_BYTES)")
