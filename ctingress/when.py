"""When each sample was taken: exact offsets from the recording's start, and the start in UTC."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from ctingress.recording import Config
from ctingress.refuse import BadRecording

NS = 1_000_000_000
_INT64 = 1 << 63
LONGEST_NS = 1 << 62
"""Longer than from BTrDB's first instant to its last."""
_OFFSET = re.compile(r"([+-]?)([0-9]{1,2})(?:h([0-9]{0,2})|:([0-9]{2}))?|([+-]?)([0-9]{2})([0-9]{2})")
_UTC = ("z", "utc", "gmt")

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stamps:
    """A DAT file's time stamps, one per sample. counts: in 10^-decimals of the config's unit, before the multiplier; -1: none."""

    counts: Offsets
    decimals: int = 0


def sample_offsets(config: Config, stamps: Stamps) -> Offsets:
    """ns from the recording's start, one per sample.

    Sample k of a rate segment stands at its start + floor(k x 10^9 / rate), exactly, and the next segment goes on from there;
    where the rate is 0, at its time stamp x the time stamp multiplier. Samples beyond the last segment belong to it.
    Raises BadRecording.
    """
    count = len(stamps.counts)
    offsets = np.zeros(count, np.int64)
    begin, start = 0, 0
    for number, rate in enumerate(config.rates):
        end = count if number == len(config.rates) - 1 else min(rate.end_sample, count)
        if begin >= end:
            break
        hz = Fraction(rate.hz)
        if hz == 0:
            offsets[begin:end] = _stamped(config, stamps, begin, end)
            if end < count:
                start = int(_stamped(config, stamps, end, end + 1)[0])
        else:
            after = start + (end - begin) * NS * hz.denominator // hz.numerator
            if after > LONGEST_NS:
                raise BadRecording(f"{end - begin} samples at {rate.hz} Hz last longer than BTrDB has room for")
            offsets[begin:end] = start + _even(end - begin, hz)
            start = after
        begin = end
    if not config.rates:
        offsets[:] = _stamped(config, stamps, 0, count)
    return offsets


def _even(count: int, hz: Fraction) -> Offsets:
    """floor(k x 10^9 / hz) for k = 0..count-1. hz.numerator samples take a whole number of seconds, so that nothing overflows."""
    p, q = hz.numerator, hz.denominator
    whole, rest = np.divmod(np.arange(count, dtype=np.int64), np.int64(min(p, _INT64 - 1)))
    largest = min(p, count) - 1
    if largest * NS * q < _INT64 and (count // p + 1) * NS * q < _INT64:
        return np.asarray(whole * (NS * q) + rest * (NS * q) // p, np.int64)
    return np.array([k * NS * q // p for k in range(count)], np.int64)


def _stamped(config: Config, stamps: Stamps, begin: int, end: int) -> Offsets:
    counts = stamps.counts[begin:end]
    missing = np.flatnonzero(counts < 0)
    if len(missing):
        raise BadRecording(
            f"DAT sample {begin + int(missing[0]) + 1} has no time stamp that could be one, and the sample rate is 0: "
            "when it was taken is not known"
        )
    scale = Fraction(config.time_multiplier) * config.stamp_unit_ns / 10**stamps.decimals
    largest = int(counts.max(initial=0))
    if largest * scale > LONGEST_NS:
        raise BadRecording(
            f"DAT sample {begin + int(counts.argmax()) + 1} stands {float(largest * scale / NS):g} s after the first by its time stamp "
            "and the multiplier: longer than BTrDB has room for"
        )
    if max(largest, 1) * scale.numerator >= _INT64 or scale.denominator >= _INT64:
        return np.array([int(one) * scale.numerator // scale.denominator for one in counts], np.int64)
    return np.asarray(counts * scale.numerator // scale.denominator, np.int64)


def start_utc_ns(config: Config, name: str, option: str | None) -> tuple[int, str, str]:
    """The first sample's instant as ns since the epoch, UTC; where its offset came from; the offset as text.

    From, in this order: the CFG's time code (C37.111-2013, 7.4.10), the time code in a file name after IEEE C37.232, the
    option (an IANA zone or an offset), else UTC is assumed. Sources: time_code, file_name, option, assumed.
    """
    local = config.start_local_ns
    told = [("time_code", config.time_code or ""), ("file_name", _from_name(name))]
    for source, text in told:
        seconds = offset_seconds(text)
        if seconds is not None:
            return local - seconds * NS, source, _shown(seconds)
    if option is not None:
        seconds = offset_seconds(option)
        if seconds is not None:
            return local - seconds * NS, "option", _shown(seconds)
        seconds = _zone_offset(local, option)
        return local - seconds * NS, "option", f"{option} ({_shown(seconds)})"
    return local, "assumed", _shown(0)


def offset_seconds(text: str) -> int | None:
    """'-4', '+10', '-5h30', '+02:00', '-0500', '0', 'UTC', 'Z' -> seconds east of UTC; None for anything else, as 'x' (not applicable)."""
    code = text.strip().lower().replace("\u2212", "-")  # a typographic minus
    if code in _UTC:
        return 0
    found = _OFFSET.fullmatch(code.removesuffix("t"))  # as in names after IEEE C37.232
    if found is None:
        return None
    hours, minutes = int(found[2] or found[6]), int(found[3] or found[4] or found[7] or 0)
    if hours > 15 or minutes > 59:
        return None
    return (-1 if "-" in code else 1) * (hours * 3600 + minutes * 60)


def check_zone(text: str) -> str:
    """The text, when it is an offset or an IANA zone. Raises ValueError."""
    if offset_seconds(text) is None:
        try:
            ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"{text!r} is neither an offset (-4, -5h30, +02:00) nor an IANA time zone (America/New_York)"
            ) from None
    return text


def _from_name(name: str) -> str:
    """The time code of a file named after IEEE C37.232: date, time, time code, station, device, company, ..."""
    fields = [field.strip() for field in posixpath.basename(name).split(",")]
    if len(fields) < 5 or not re.fullmatch(r"\d{6}|\d{8}", fields[0]) or not re.fullmatch(r"\d{1,12}", fields[1]):
        return ""
    found = re.fullmatch(r"([+-]?\d{1,2}(?:h\d{1,2})?)[a-z]?", fields[2].lower())
    return found.group(1) if found else ""


def _zone_offset(local_ns: int, zone: str) -> int:
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=local_ns // NS)
    offset = local.replace(tzinfo=ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def _shown(seconds: int) -> str:
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02d}:{minutes:02d}"
