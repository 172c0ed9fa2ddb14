"""A DAT file -> Samples. IEEE C37.111-2013, clause 8 (1991 and 1999: clause 6), in all four encodings."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ctingress.recording import Config, Samples
from ctingress.refuse import BadRecording, field_error
from ctingress.when import sample_offsets

Floats = npt.NDArray[np.float64]

_KINDS = {"BINARY": "<i2", "BINARY32": "<i4", "FLOAT32": "<f4"}
_MISSING_STAMP = 0xFFFFFFFF
_MISSING_FLOAT = np.float32(-3.4028234663852886e38)


def read_dat(data: bytes, config: Config) -> Samples:
    """The samples of a DAT file, scaled, in the config's order of channels. Raises BadRecording naming line or byte."""
    raw, statuses, stamps = _ascii(data, config) if config.encoding == "ASCII" else _binary(data, config)
    analogs = [channel for channel in config.channels if channel.kind == "analog"]
    with np.errstate(over="ignore", invalid="ignore"):
        for row, channel in enumerate(analogs):
            raw[row] = raw[row] * channel.a + channel.b
    raw[~np.isfinite(raw)] = np.nan
    offsets = sample_offsets(config, len(stamps), stamps)
    return Samples(np.concatenate([raw, statuses]), offsets)


def _split(config: Config) -> tuple[int, int]:
    analogs = sum(channel.kind == "analog" for channel in config.channels)
    return analogs, len(config.channels) - analogs


def _binary(data: bytes, config: Config) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    analogs, statuses = _split(config)
    kind = np.dtype(_KINDS[config.encoding])
    words = (statuses + 15) // 16
    row = np.dtype([("n", "<u4"), ("stamp", "<u4"), ("analog", kind, (analogs,)), ("status", "<u2", (words,))])
    if len(data) % row.itemsize == 1 and data.endswith(b"\x1a"):
        data = data[:-1]  # the end-of-file mark of old systems
    if len(data) % row.itemsize:
        raise BadRecording(
            f"the DAT file has {len(data)} bytes, {len(data) % row.itemsize} more than {len(data) // row.itemsize} samples of "
            f"{row.itemsize} (8 + {analogs} analog x {kind.itemsize} + {words} status words x 2): it is cut off, or "
            "the CFG file's channels are not its own"
        )
    table = np.frombuffer(data, row)
    raw = table["analog"].T.astype(np.float64)
    raw[np.asarray(_missing(table["analog"].T, config))] = np.nan
    bits = table["status"].astype(np.uint16)
    state = [(bits[:, index // 16] >> (index % 16)) & 1 for index in range(statuses)]
    columns = np.array(state, np.float64).reshape(statuses, len(table))
    stamps = table["stamp"].astype(np.int64)
    absent = stamps == _MISSING_STAMP
    return raw, columns, np.where(absent, -1, _unwrapped(stamps, absent))


def _missing(raw: npt.NDArray[np.generic], config: Config) -> npt.NDArray[np.bool_]:
    """Where the revision's sentinel stands: FFFF (1991) or 8000 hexadecimal, 80000000, the most negative float or no number."""
    if config.encoding == "BINARY":
        return np.asarray(raw == (-1 if config.revision == 1991 else -(1 << 15)))
    if config.encoding == "BINARY32":
        return np.asarray(raw == -(1 << 31))
    return np.asarray((raw == _MISSING_FLOAT) | ~np.isfinite(raw.astype(np.float32)))


def _unwrapped(stamps: npt.NDArray[np.int64], absent: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """32 bits of microseconds run over after 71 minutes."""
    there = np.flatnonzero(~absent)
    steps = np.diff(stamps[there], prepend=stamps[there[:1]])
    result = stamps.copy()
    result[there] += np.cumsum(steps < -(1 << 31)) << 32
    return result


def _ascii(data: bytes, config: Config) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    analogs, statuses = _split(config)
    width = 2 + analogs + statuses
    lines = re.split(r"\r\n|\n|\r", data.decode("latin-1").rstrip("\r\n\t \x00\x1a"))
    rows = []
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == width + 1 and not fields[-1]:
            fields.pop()
        if len(fields) != width:
            raise BadRecording(
                f"DAT line {number} has {len(fields)} fields; it should have {width} "
                f"(number, time stamp, {analogs} analog, {statuses} status)"
            )
        rows.append(fields)
    columns = list(zip(*rows, strict=True))
    stamps = _column(columns[1], 2, "time stamp", {"": -1.0})
    missing = {"": np.nan} if config.revision == 1991 else {"": np.nan, "99999": np.nan}
    raw = [_column(column, 3 + i, "analog value", missing) for i, column in enumerate(columns[2 : 2 + analogs])]
    state = [_status(column, 3 + analogs + i) for i, column in enumerate(columns[2 + analogs :])]
    shape = (-1, len(rows))
    return np.array(raw).reshape(shape), np.array(state).reshape(shape), np.floor(stamps).astype(np.int64)


def _column(texts: Sequence[str], field: int, what: str, instead: dict[str, float]) -> Floats:
    try:
        return np.array([instead[text] if text in instead else float(text) for text in texts], np.float64)
    except ValueError:
        for line, text in enumerate(texts, 1):
            try:
                instead.get(text) or float(text)
            except ValueError:
                raise _in_dat(line, field, what, text, "a number") from None
        raise


def _status(texts: Sequence[str], field: int) -> Floats:
    known = {"0": 0.0, "1": 1.0, "": np.nan}
    for line, text in enumerate(texts, 1):
        if text not in known:
            raise _in_dat(line, field, "status", text, "0 or 1")
    return np.array([known[text] for text in texts], np.float64)


def _in_dat(line: int, field: int, what: str, text: str, right: str) -> BadRecording:
    return BadRecording(f"DAT {field_error(line, field, what, text, right)}")
