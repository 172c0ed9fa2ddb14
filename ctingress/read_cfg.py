"""A CFG file -> Config. IEEE C37.111-1991, -1999 and -2013, clause 7; what recorders deviate in is read where it has one meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation

from ctingress.recording import Channel, Config, Rate
from ctingress.refuse import BadRecording, field_error

NS = 1_000_000_000
ENCODINGS = ("ASCII", "BINARY", "BINARY32", "FLOAT32")
_REVISIONS = {"1991": 1991, "1999": 1999, "2001": 1999, "2013": 2013}  # IEC 60255-24:2001 is C37.111-1999
_ANALOG, _ANALOG_1991 = 13, 10
_MOST_CHANNELS = 100_000
_BLANK = " \t\x00"


class _Lines:
    """The file's lines, taken one by one; fields are trimmed."""

    def __init__(self, text: str) -> None:
        self._lines = re.split(r"\r\n|\n|\r", text)
        while self._lines and not self._lines[-1].strip(" \t\x00\x1a"):
            self._lines.pop()
        self.number = 0

    def take(self, what: str) -> list[str]:
        """The next line's fields; raises BadRecording when the file has ended."""
        if self.number >= len(self._lines):
            raise BadRecording(f"line {self.number + 1} ({what}): the file ends before it")
        self.number += 1
        return [part.strip(_BLANK) for part in self._lines[self.number - 1].split(",")]

    def joined(self, first: int, end: int) -> str:
        """Fields first to end - 1 of the line taken last, with the commas and blanks between them: a name that holds commas."""
        return ",".join(self._lines[self.number - 1].split(",")[first:end]).strip(_BLANK)

    def peek(self) -> str:
        """The next line, '' at the end."""
        return self._lines[self.number] if self.number < len(self._lines) else ""


def read_cfg(text: str) -> Config:
    """The config that a CFG file's text holds. Raises BadRecording naming line and field."""
    lines = _Lines(text)
    station, device, revision = _head(lines)
    analogs, statuses = _counts(lines)
    channels = [_analog(lines, position) for position in range(1, analogs + 1)]
    channels += [_status(lines, position) for position in range(1, statuses + 1)]
    frequency = _frequency(lines)
    rates = _rates(lines)
    start, trigger = _instant(lines, "first sample", revision), _instant(lines, "trigger", revision)
    encoding = lines.take("file type")[0].upper()
    if encoding not in ENCODINGS:
        raise field_error(lines.number, 1, "file type", encoding, "one of " + ", ".join(ENCODINGS))
    multiplier = _multiplier(lines)
    codes = _optional(lines, "time code, local code") if revision == 2013 else []
    quality = _optional(lines, "time quality, leap second") if revision == 2013 else []
    return Config(
        station=station,
        device=device,
        revision=revision,
        channels=tuple(channels),
        line_frequency_hz=frequency,
        rates=rates,
        total_samples=rates[-1].end_sample if rates else None,
        start_local_ns=start,
        trigger_local_ns=trigger,
        encoding=encoding,
        time_multiplier=multiplier,
        time_code=codes[0] if codes else None,
        local_code=codes[1] if len(codes) > 1 else None,
        time_quality=quality[0] if quality else None,
        leap_second=quality[1] if len(quality) > 1 else None,
    )


def _head(lines: _Lines) -> tuple[str, str, int]:
    fields = lines.take("station, device, revision")
    if len(fields) >= 3 and (fields[-1] in _REVISIONS or not fields[-1]):
        revision = _REVISIONS[fields[-1]] if fields[-1] else 1991
        return lines.joined(0, len(fields) - 2), fields[-2], revision
    if len(fields) <= 2:
        return fields[0], fields[1] if len(fields) == 2 else "", 1991
    raise field_error(lines.number, len(fields), "revision", fields[-1], "1991, 1999 or 2013, or absent")


def _counts(lines: _Lines) -> tuple[int, int]:
    fields = lines.take("numbers of channels")
    found = {"A": 0, "D": 0}
    for position, text in enumerate(fields[1:], 2):
        match = re.fullmatch(r"(\d+)\s*([AaDd])", text)
        if match is not None:
            found[match.group(2).upper()] = int(match.group(1))
        elif text:
            raise field_error(lines.number, position, "number of channels", text, "like 7A or 3D")
    if not 0 < sum(found.values()) <= _MOST_CHANNELS:
        text = ",".join(fields)
        raise field_error(lines.number, 1, "number of channels", text, f"1 to {_MOST_CHANNELS}, as in 10,7A,3D")
    return found["A"], found["D"]


def _analog(lines: _Lines, position: int) -> Channel:
    fields = lines.take(f"analog channel {position}")
    line = lines.number
    while len(fields) > _ANALOG_1991 and not fields[-1] and len(fields) != _ANALOG:
        fields.pop()
    tail = 8 if fields[-1].upper() in ("P", "S") or len(fields) >= _ANALOG else 5
    if len(fields) < tail + 5:
        raise BadRecording(
            f"line {line}: analog channel {position} has {len(fields)} fields; it should have {_ANALOG} (1991: {_ANALOG_1991})"
        )
    numbers = fields[-tail:]
    at = len(fields) - tail + 1  # the number of the field that holds a; a name with commas moves it
    name, phase, circuit, unit = lines.joined(1, len(fields) - tail - 3), *fields[-tail - 3 : -tail]
    primary = _number(line, at + 5, "primary", numbers[5], 1.0) if tail == 8 else 1.0
    secondary = _number(line, at + 6, "secondary", numbers[6], 1.0) if tail == 8 else 1.0
    ps = numbers[7].upper() if tail == 8 else ""
    if ps not in ("", "P", "S"):
        raise field_error(line, at + 7, "primary or secondary", numbers[7], "P or S")
    return Channel(
        index=_index(fields[0], position),
        kind="analog",
        name=name,
        phase=phase,
        circuit=circuit,
        unit=unit,
        a=_number(line, at, "multiplier a", numbers[0], None),
        b=_number(line, at + 1, "offset b", numbers[1], None),
        skew_us=_number(line, at + 2, "skew", numbers[2], 0.0),
        minimum=_limit(line, at + 3, "minimum", numbers[3]),
        maximum=_limit(line, at + 4, "maximum", numbers[4]),
        primary=primary,
        secondary=secondary,
        ps=ps,
    )


def _status(lines: _Lines, position: int) -> Channel:
    fields = lines.take(f"status channel {position}")
    while len(fields) > 3 and not fields[-1] and len(fields) != 5:
        fields.pop()
    if len(fields) < 2:
        raise BadRecording(
            f"line {lines.number}: status channel {position} has {len(fields)} field; it should have 5 (1991: 3)"
        )
    last = fields[-1]
    if len(fields) > 2 and last not in ("", "0", "1"):
        raise field_error(lines.number, len(fields), "normal state", last, "0 or 1")
    inner = fields[1:-1] if len(fields) > 2 else fields[1:]
    # of the fields between number and normal state the last two are phase and circuit
    name, phase, circuit = (inner[0], "", "") if len(inner) < 3 else (lines.joined(1, len(inner) - 1), *inner[-2:])
    normal = int(last) if len(fields) > 2 and last else None
    return Channel(_index(fields[0], position), "status", name, phase, circuit, normal=normal)


def _index(text: str, position: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and int(text) < 1 << 31 else position


def _number(line: int, field: int, what: str, text: str, absent: float | None) -> float:
    if not text and absent is not None:
        return absent
    try:
        number = float(text.replace("_", "?"))
    except ValueError:
        raise field_error(line, field, what, text, "a number") from None
    if not math.isfinite(number):
        raise field_error(line, field, what, text, "a finite number")
    return number


def _limit(line: int, field: int, what: str, text: str) -> float | None:
    return _number(line, field, what, text, None) if text else None


def _frequency(lines: _Lines) -> float | None:
    text = lines.take("line frequency")[0]
    return _number(lines.number, 1, "line frequency", text, None) if text else None


def _rates(lines: _Lines) -> tuple[Rate, ...]:
    text = lines.take("number of sample rates")[0]
    if not text.isascii() or not text.isdigit() or int(text) > 100_000:
        raise field_error(lines.number, 1, "number of sample rates", text, "a whole number")
    if int(text) == 0 and "/" in lines.peek():
        return ()  # without the line that the standard wants after 0
    rates: list[Rate] = []
    for _ in range(max(int(text), 1)):
        fields = lines.take("sample rate, last sample")
        rate = _rate(lines.number, fields)
        if rates and rate.end_sample <= rates[-1].end_sample:
            right = f"more than the {rates[-1].end_sample} of the rate before"
            raise field_error(lines.number, 2, "last sample", fields[1], right)
        rates.append(rate)
    return tuple(rates)


def _rate(line: int, fields: Sequence[str]) -> Rate:
    if len(fields) < 2:
        raise BadRecording(f"line {line}: has {len(fields)} field; it should have a sample rate and its last sample")
    try:
        hz = Decimal(fields[0])
        right = hz.is_finite() and 0 <= hz <= 10**9
    except InvalidOperation:
        right = False
    if not right:
        raise field_error(line, 1, "sample rate", fields[0], "a number of Hz from 0 to 10^9")
    try:
        end = Decimal(fields[1])
        whole = end.is_finite() and end == int(end) and 0 < end < 1 << 62
    except (InvalidOperation, ValueError, OverflowError):
        whole = False
    if not whole:
        raise field_error(line, 2, "last sample", fields[1], "a whole number, counted from 1")
    return Rate(format(hz, "f"), int(end))


def _instant(lines: _Lines, what: str, revision: int) -> int:
    """ns since 1970-01-01T00:00:00 of the recorder's clock; 1991 writes the month first, later revisions the day."""
    fields = lines.take(f"date and time of {what}")
    line = lines.number
    day = re.fullmatch(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4}|\d{2})", fields[0])
    form = "mm/dd/yyyy" if revision == 1991 else "dd/mm/yyyy"
    if day is None:
        raise field_error(line, 1, f"date of {what}", fields[0], form)
    one, two, year = int(day.group(1)), int(day.group(2)), int(day.group(3))
    if len(day.group(3)) == 2:
        year += 1900 if year >= 70 else 2000
    month, number = (one, two) if revision == 1991 else (two, one)
    if month > 12 >= number:
        month, number = number, month  # the other order is the only one that is a date
    try:
        days = date(year, month, number).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        raise field_error(line, 1, f"date of {what}", fields[0], f"a date, {form}") from None
    text = fields[1] if len(fields) > 1 else ""
    clock = re.fullmatch(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.](\d*))?", text)
    if clock is None:
        raise field_error(line, 2, f"time of {what}", text, "hh:mm:ss with up to nine decimals")
    hours, minutes, seconds = int(clock.group(1)), int(clock.group(2)), int(clock.group(3))
    if hours > 24 or minutes > 59 or seconds > 60 or (hours == 24 and (minutes or seconds)):
        raise field_error(line, 2, f"time of {what}", text, "a time of day")
    fraction = int((clock.group(4) or "").ljust(9, "0")[:9])
    return (days * 86_400 + hours * 3600 + minutes * 60 + seconds) * NS + fraction


def _multiplier(lines: _Lines) -> str:
    text = (_optional(lines, "time stamp multiplier") or [""])[0]
    if not text:
        return "1"
    try:
        number = Decimal(text)
        right = number.is_finite() and 0 < number < 10**12
    except InvalidOperation:
        right = False
    if not right:
        raise field_error(lines.number, 1, "time stamp multiplier", text, "a positive number")
    return format(number, "f")


def _optional(lines: _Lines, what: str) -> list[str]:
    return lines.take(what) if lines.peek() else []
