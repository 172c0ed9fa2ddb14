"""A DAT file -> Samples. IEEE C37.111-2013, clause 8 (1991 and 1999: clause 6), in all four encodings."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt

from ctingress.recording import Channel, Config, Samples
from ctingress.refuse import BadRecording, field_error
from ctingress.when import Stamps, sample_offsets

Floats = npt.NDArray[np.float64]

_KINDS = {"BINARY": "<i2", "BINARY32": "<i4", "FLOAT32": "<f4"}
_BLANK = " \t\x00\x1a"
_TEXT, _TEXT_AT_LEAST = b"0123456789+-.,eE \t\r\n\x1a", 4096
_ROWS_AT_ONCE = 20_000
_MISSING_1991, _MISSING_1999 = 999999.0, 99999.0
_LARGEST_1999 = 99998.0
_MOST_DECIMALS = 9
_MISSING_STAMP = 0xFFFFFFFF
_MISSING_FLOAT = np.float32(-3.4028234663852886e38)


def read_dat(data: bytes, config: Config, first_line: int = 1) -> Samples:
    """The samples of a DAT file, scaled, in the config's order of channels. Raises BadRecording naming line or byte.

    first_line: the number of its first line, in a CFF file.
    """
    values, stamps = _ascii(data, config, first_line) if config.encoding == "ASCII" else _binary(data, config)
    if not len(stamps.counts):
        raise BadRecording("the DAT file holds no sample")
    if config.total_samples is not None and len(stamps.counts) < config.total_samples:
        raise BadRecording(
            f"the DAT file holds {len(stamps.counts)} samples; by the CFG file there should be {config.total_samples}: it is cut off"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        for row, channel in zip(values, _analogs(config), strict=False):
            row *= channel.a
            row += channel.b
            row[~np.isfinite(row)] = np.nan
    return Samples(values, sample_offsets(config, stamps))


def _analogs(config: Config) -> list[Channel]:
    return [channel for channel in config.channels if channel.kind == "analog"]


def _split(config: Config) -> tuple[int, int]:
    analogs = len(_analogs(config))
    return analogs, len(config.channels) - analogs


def _binary(data: bytes, config: Config) -> tuple[Floats, Stamps]:
    analogs, statuses = _split(config)
    kind = np.dtype(_KINDS[config.encoding])
    words = (statuses + 15) // 16
    row = np.dtype([("n", "<u4"), ("stamp", "<u4"), ("analog", kind, (analogs,)), ("status", "<u2", (words,))])
    told = (config.total_samples or 0) * row.itemsize
    if told and not data[told:].strip(b"\0\x1a"):
        data = data[:told]  # filled up to whole blocks
    _check_encoding(data, config, analogs, words)
    rest = len(data) % row.itemsize
    if rest and not data[-rest:].strip(b"\r\n\x1a"):
        data = data[:-rest]  # a line end, or the end-of-file mark of old systems
    if len(data) % row.itemsize:
        raise BadRecording(
            f"the DAT file has {len(data)} bytes, {len(data) % row.itemsize} more than {len(data) // row.itemsize} samples of "
            f"{row.itemsize} (8 + {analogs} analog x {kind.itemsize} + {words} status words x 2): it is cut off, or "
            "the CFG file's channels are not its own"
        )
    table = np.frombuffer(data, row)
    values = np.empty((analogs + statuses, len(table)), np.float64)
    for index in range(analogs):
        raw = table["analog"][:, index]
        values[index] = raw
        values[index][_missing(raw, config)] = np.nan
    for index in range(statuses):
        values[analogs + index] = table["status"][:, index // 16] >> np.uint16(index % 16) & np.uint16(1)
    stamps = table["stamp"].astype(np.int64)
    absent = stamps == _MISSING_STAMP
    return values, Stamps(np.where(absent, -1, _unwrapped(stamps, absent)))


def _check_encoding(data: bytes, config: Config, analogs: int, words: int) -> None:
    """Raises BadRecording where the data are plainly in another encoding than the CFG names, and would be read as noise."""
    total = config.total_samples or 0
    sizes = {name: total * (8 + analogs * np.dtype(kind).itemsize + words * 2) for name, kind in _KINDS.items()}
    others = [name for name, size in sizes.items() if size == len(data) != sizes[config.encoding]]
    if data and not data[:_TEXT_AT_LEAST].translate(None, _TEXT):
        others = ["ASCII"]  # in binary the number of a sample has zeros
    if others:
        raise BadRecording(
            f"the DAT file is in {' or '.join(others)}, the CFG file says {config.encoding}: which one is not clear"
        )


def _missing(raw: npt.NDArray[np.generic], config: Config) -> npt.NDArray[np.bool_]:
    """Where the revision's sentinel stands: FFFF (1991) or 8000 hexadecimal, 80000000, the most negative float or no number."""
    if config.encoding == "BINARY":
        return np.asarray(raw == (-1 if config.revision == 1991 else -(1 << 15)))
    if config.encoding == "BINARY32":
        return np.asarray(raw == -(1 << 31))
    return np.asarray((raw == _MISSING_FLOAT) | ~np.isfinite(raw.astype(np.float32)))


def _unwrapped(stamps: npt.NDArray[np.int64], absent: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """32 bits of microseconds run over after 71 minutes, of nanoseconds after four seconds."""
    there = np.flatnonzero(~absent)
    steps = np.diff(stamps[there], prepend=stamps[there[:1]])
    result = stamps.copy()
    result[there] += np.cumsum(steps < -(1 << 31)) << 32
    return result


def _ascii(data: bytes, config: Config, first_line: int) -> tuple[Floats, Stamps]:
    analogs, statuses = _split(config)
    missing = [_sentinel(channel, config.revision) for channel in _analogs(config)]
    text = data.removeprefix(codecs.BOM_UTF8).decode(
        "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin-1", "replace"
    )
    if "\0" in text[:4]:  # of a number below 16,777,216
        raise BadRecording("the DAT file begins with a binary number, the CFG file says ASCII: which one is not clear")
    numbered = enumerate(re.split(r"\r\n|\n|\r", text), first_line)
    rows = ((number, line) for number, line in numbered if line.strip(_BLANK))
    blocks: list[Floats] = []
    lines: list[int] = []
    stamps: list[str] = []
    while taken := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        numbers, columns = _columns(taken, analogs, statuses)
        lines += numbers
        stamps += columns[1]
        block = [_analog(numbers, column, 3 + i, missing[i]) for i, column in enumerate(columns[2 : 2 + analogs])]
        block += [_status(numbers, column, 3 + analogs + i) for i, column in enumerate(columns[2 + analogs :])]
        blocks.append(np.array(block))
    values = np.concatenate(blocks, axis=1) if blocks else np.empty((analogs + statuses, 0), np.float64)
    return values, _stamps(lines, stamps)


def _columns(rows: Sequence[tuple[int, str]], analogs: int, statuses: int) -> tuple[list[int], list[tuple[str, ...]]]:
    """The lines' numbers, and their fields by column."""
    width = 2 + analogs + statuses
    numbers, table = [], []
    for number, line in rows:
        fields = line.split(",")
        while len(fields) > width and not fields[-1].strip(_BLANK):
            fields.pop()
        if len(fields) != width:
            raise BadRecording(
                f"DAT line {number} has {len(fields)} field{'s' * (len(fields) != 1)}; it should have {width} "
                f"(number, time stamp, {analogs} analog, {statuses} status)"
            )
        if "_" in line:  # in a number it means something to Python only
            position = next(at for at, field in enumerate(fields, 1) if "_" in field)
            raise _in_dat(number, position, "value", fields[position - 1], "a number")
        numbers.append(number)
        table.append(fields)
    if any(sign in line for _, line in rows for sign in _BLANK):
        table = [[field.strip(_BLANK) for field in fields] for fields in table]
    columns = list(zip(*table, strict=True))
    if not all(map(str.isdecimal, columns[0])):  # what they count is not asked: some begin at 0, some begin again
        for number, text in zip(numbers, columns[0], strict=True):
            if text and not _is_number(text):
                raise _in_dat(number, 1, "sample number", text, "a number")
    return numbers, columns


def _stamps(lines: Sequence[int], texts: Sequence[str]) -> Stamps:
    """Time stamps as they are written, without rounding; those that are left out or no time are -1."""
    try:
        return Stamps(np.array([int(text) if text else -1 for text in texts], np.int64))
    except (ValueError, OverflowError):
        pass
    numbers = []
    for line, text in zip(lines, texts, strict=True):
        try:
            numbers.append(Decimal(text or "-1"))
        except InvalidOperation:
            raise _in_dat(line, 2, "time stamp", text, "a number") from None
    exponents = [int(number.as_tuple().exponent) for number in numbers if number.is_finite()]
    decimals = min(max(0, -min(exponents, default=0)), _MOST_DECIMALS)
    largest = Decimal(10) ** (18 - decimals)
    fitting = (number if number.is_finite() and 0 <= number < largest else Decimal(-1) for number in numbers)
    return Stamps(
        np.array([int(number.scaleb(decimals)) if number >= 0 else -1 for number in fitting], np.int64), decimals
    )


def _sentinel(channel: Channel, revision: int) -> float | None:
    """What stands for a missing value, beside the empty field: 999999 (C37.111-1991, 6.3.4), 99999 (1999, 6.3), nothing (2013, 8.4).

    A channel of 2013 that names the limit of 1999 keeps to its sentinel too: 99999 is no value that it could have.
    """
    if revision == 1991:
        return _MISSING_1991
    return _MISSING_1999 if revision == 1999 or channel.maximum == _LARGEST_1999 else None


def _analog(lines: Sequence[int], texts: Sequence[str], field: int, missing: float | None) -> Floats:
    try:
        values = np.array([float(text or "nan") for text in texts], np.float64)
    except ValueError:
        line, text = next(one for one in zip(lines, texts, strict=True) if one[1] and not _is_number(one[1]))
        raise _in_dat(line, field, "analog value", text, "a number") from None
    if missing is not None:
        values[values == missing] = np.nan
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _status(lines: Sequence[int], texts: Sequence[str], field: int) -> Floats:
    known = {"0": 0.0, "1": 1.0, "": np.nan}
    try:
        return np.array([known[text] for text in texts], np.float64)
    except KeyError:
        line, text = next(one for one in zip(lines, texts, strict=True) if one[1] not in known)
        raise _in_dat(line, field, "status", text, "0 or 1") from None


def _in_dat(line: int, field: int, what: str, text: str, right: str) -> BadRecording:
    return BadRecording(f"DAT {field_error(line, field, what, text, right)}")
