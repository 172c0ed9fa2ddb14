"""A CFG file -> Config. IEEE C37.111-1991, -1999 and -2013, clause 7; what recorders deviate in is read where it has one meaning."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from decimal import Decimal

from ctingress.read_instants import is_instant, read_instants
from ctingress.recording import Channel, Config, Rate
from ctingress.refuse import BadRecording, field_error
from ctingress.when import offset_seconds

ENCODINGS = ("ASCII", "BINARY", "BINARY32", "FLOAT32")
_REVISIONS = {"1991": 1991, "1999": 1999, "2001": 1999, "2013": 2013}  # IEC 60255-24:2001 is C37.111-1999
_ANALOG, _ANALOG_1991 = 13, 10
_MOST_CHANNELS = 100_000
_BLANK = " \t\x1a"
_MICROSECONDS = 6
_DECIMAL_COMMA = re.compile(r"[0-9]+,[0-9]+")
_QUALITY = re.compile(r"[0-9A-F]\s*,\s*[0-3]", re.IGNORECASE)
_CODE_BEGINS = re.compile(r"[+-]?[0-9]|(x|z|utc|gmt)\s*,", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")


class _Lines:
    """The file's lines, taken one by one; fields are trimmed. Blank lines count where a line may be blank, else they are passed over."""

    def __init__(self, text: str, first: int) -> None:
        # names of a fixed width are filled up with NUL, which no database takes
        lines = list(enumerate(re.split(r"\r\n|\n|\r", text.replace("\0", " ")), first))
        while lines and not lines[-1][1].strip(_BLANK):
            lines.pop()
        if len(lines) > 3 and not any(line.strip(_BLANK) for _, line in lines[1::2]):
            lines = lines[::2]  # line ends that a transfer has doubled: CR CR LF
        self._lines = lines
        self._first = first
        self._next = 0
        self.number = 0

    def take(self, what: str, *, may_be_blank: bool = False) -> list[str]:
        """The next line's fields; raises BadRecording when the file has ended."""
        while not may_be_blank and self._next < len(self._lines) and not self._at(self._next).strip(_BLANK):
            self._next += 1
        if self._next >= len(self._lines):
            last = self._lines[-1][0] if self._lines else self._first - 1
            raise BadRecording(f"line {last + 1} ({what}): the file ends before it")
        self.number = self._lines[self._next][0]
        self._next += 1
        return [part.strip(_BLANK) for part in self._at(self._next - 1).split(",")]

    def joined(self, first: int, end: int) -> str:
        """Fields first to end - 1 of the line taken last, with the commas and blanks between them: a name that holds commas."""
        return ",".join(self._at(self._next - 1).split(",")[first:end]).strip(_BLANK)

    def blank(self) -> bool:
        """Whether the next line is there and blank, but for commas."""
        return self._next < len(self._lines) and not self._at(self._next).strip(_BLANK + ",")

    def word_ahead(self) -> bool:
        """Whether the next line that is not blank begins with a letter."""
        lines = (line.strip(_BLANK) for _, line in self._lines[self._next :])
        return next(filter(None, lines), "")[:1].isalpha()

    def ahead(self, count: int = 1) -> str:
        """The count-th line from here on that is not blank, without commas at its end; '' when there is none."""
        lines = (line.strip(_BLANK + ",") for _, line in self._lines[self._next :])
        return next(itertools.islice(filter(None, lines), count - 1, None), "")

    def _at(self, index: int) -> str:
        return self._lines[index][1]


def read_cfg(text: str, first_line: int = 1) -> Config:
    """The config that a CFG file's text holds; first_line: its number, in a CFF file. Raises BadRecording naming line and field."""
    lines = _Lines(text, first_line)
    station, device, revision = _head(lines)
    analogs, statuses = _counts(lines)
    channels = [_analog(lines, position, revision) for position in range(1, analogs + 1)]
    channels += [_status(lines, position, revision) for position in range(1, statuses + 1)]
    frequency = _frequency(lines)
    rates = _rates(lines)
    instants = read_instants(lines, revision)
    encoding = lines.take("file type")[0].upper()
    if encoding not in ENCODINGS:
        raise field_error(lines.number, 1, "file type", encoding, "one of " + ", ".join(ENCODINGS))
    multiplier = _multiplier(lines)
    codes = _time_codes(lines, revision)
    quality = _quality(lines, revision, codes)
    return Config(
        station=station,
        device=device,
        revision=revision,
        channels=tuple(channels),
        line_frequency_hz=frequency,
        rates=rates,
        total_samples=rates[-1].end_sample if rates else None,
        start_local_ns=instants.start_ns,
        trigger_local_ns=instants.trigger_ns,
        encoding=encoding,
        time_multiplier=multiplier,
        stamp_unit_ns=1 if revision == 2013 and instants.decimals > _MICROSECONDS else 1000,
        time_code=codes[0] or None if codes else None,
        local_code=codes[1] or None if len(codes) > 1 else None,
        time_quality=quality[0] or None if quality else None,
        leap_second=quality[1] or None if len(quality) > 1 else None,
    )


def _head(lines: _Lines) -> tuple[str, str, int]:
    fields = lines.take("station, device, revision")
    while len(fields) > 3 and not fields[-1]:
        fields.pop()
    if len(fields) >= 3 and (fields[-1] in _REVISIONS or not fields[-1]):
        revision = _REVISIONS[fields[-1]] if fields[-1] else 1991
        return lines.joined(0, len(fields) - 2), fields[-2], revision
    if len(fields) <= 2:
        return fields[0], fields[1] if len(fields) == 2 else "", 1991
    raise field_error(lines.number, len(fields), "revision", fields[-1], "1991, 1999 or 2013, or absent")


def _counts(lines: _Lines) -> tuple[int, int]:
    fields = lines.take("numbers of channels")
    found: dict[str, int] = {}
    for position, text in enumerate(fields, 1):
        match = re.fullmatch(r"([0-9]{1,9})\s*([AD])", text.upper())
        if match is not None and match.group(2) not in found:
            found[match.group(2)] = int(match.group(1))
        elif text and position > 1:  # the first is the total, which the others tell better
            raise field_error(lines.number, position, "number of channels", text, "like 7A or 3D, once each")
    if not 0 < sum(found.values()) <= _MOST_CHANNELS:
        text = ",".join(fields)
        raise field_error(lines.number, 1, "number of channels", text, f"1 to {_MOST_CHANNELS}, as in 10,7A,3D")
    return found.get("A", 0), found.get("D", 0)


def _analog(lines: _Lines, position: int, revision: int) -> Channel:
    fields = lines.take(f"analog channel {position}")
    line = lines.number
    tail = _numbers_at_end(fields, revision)
    if len(fields) < tail + 5:
        raise BadRecording(
            f"line {line}: analog channel {position} has {len(fields)} fields; it should have {_ANALOG} (1991: {_ANALOG_1991})"
        )
    numbers = fields[-tail:]
    at = len(fields) - tail + 1  # the number of the field that holds a; a name with commas moves it
    name, phase, circuit, unit = lines.joined(1, len(fields) - tail - 3), *fields[-tail - 3 : -tail]
    if len(fields) > tail + 5 and _NUMBER.fullmatch(unit):  # too many fields, and a number too early
        right = f"a unit: there are more than {tail + 5} fields, so that a comma seems to stand for a decimal point"
        raise field_error(line, at - 1, "unit", unit, right)
    primary = _number(line, at + 5, "primary", numbers[5], 1.0) if tail == 8 else 1.0
    secondary = _number(line, at + 6, "secondary", numbers[6], 1.0) if tail == 8 else 1.0
    ps = numbers[7].upper() if tail == 8 else ""
    if ps not in ("", "P", "S"):
        raise field_error(line, at + 7, "primary or secondary", numbers[7], "P or S")
    if secondary and not math.isfinite(primary / secondary):
        raise field_error(line, at + 6, "secondary", numbers[6], f"a divisor of the primary, {numbers[5]}")
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


def _numbers_at_end(fields: list[str], revision: int) -> int:
    """How many fields follow the unit: 8 (a, b, skew, minimum, maximum, primary, secondary, PS), in 1991 the first 5.

    The first form that fits counts, whatever the revision says: recorders mix them. fields loses what follows the last.
    """
    while len(fields) > _ANALOG and not fields[-1]:
        fields.pop()
    if len(fields) >= _ANALOG and fields[-1].upper() in ("", "P", "S") and _scaled(fields[-8:-1]):
        return 8
    while len(fields) > _ANALOG_1991 and not fields[-1]:
        fields.pop()
    if len(fields) >= _ANALOG - 1 and _scaled(fields[-7:]) and not (revision == 1991 and _out_of_order(fields[-7:])):
        fields.append("")  # PS is left out
        return 8
    return 5 if len(fields) <= _ANALOG_1991 or revision == 1991 else 8


def _scaled(fields: Sequence[str]) -> bool:
    """Whether fields are numbers, a and b not left out."""
    return all(fields[:2]) and all(not text or _NUMBER.fullmatch(text) for text in fields)


def _out_of_order(fields: Sequence[str]) -> bool:
    """Whether a, b, skew, minimum, maximum, primary, secondary cannot be these: a form of 1991 that decimal commas have made longer."""
    low, high, primary = (float(text or 0) for text in fields[3:6])
    return primary < 0 or (bool(fields[3] and fields[4]) and low > high)


def _status(lines: _Lines, position: int, revision: int) -> Channel:
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
    if len(inner) >= 3:  # of the fields between number and normal state the last two are phase and circuit
        name, phase, circuit = lines.joined(1, len(inner) - 1), *inner[-2:]
    elif revision == 1991:
        name, phase, circuit = lines.joined(1, len(inner) + 1), "", ""
    else:
        name, phase, circuit = inner[0], "".join(inner[1:]), ""
    normal = int(last) if len(fields) > 2 and last else None
    return Channel(_index(fields[0], position), "status", name, phase, circuit, normal=normal)


def _index(text: str, position: int) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else position


def _number(line: int, field: int, what: str, text: str, absent: float | None) -> float:
    if not text and absent is not None:
        return absent
    if not _NUMBER.fullmatch(text):
        raise field_error(line, field, what, text, "a number")
    number = float(text)
    if not math.isfinite(number):
        raise field_error(line, field, what, text, "a finite number")
    return number


def _limit(line: int, field: int, what: str, text: str) -> float | None:
    return _number(line, field, what, text, None) if text else None


def _frequency(lines: _Lines) -> float | None:
    # a blank line is a frequency left out when the number of rates follows it, of which the next line has the first
    left_out = lines.blank() and "," in lines.ahead(2)
    fields = lines.take("line frequency", may_be_blank=left_out)
    whole = ",".join(fields).rstrip(",")
    if whole.count(",") > 1 or _DECIMAL_COMMA.fullmatch(whole):  # the former is a channel that line 2 does not count
        right = "a number, alone in its line, decimals after a point"
        raise field_error(lines.number, 1, "line frequency", whole, right)
    text = _without_unit(fields[0])
    return _number(lines.number, 1, "line frequency", text, None) if text else None


def _without_unit(text: str) -> str:
    return text[:-2].rstrip() if text.upper().endswith("HZ") else text


def _rates(lines: _Lines) -> tuple[Rate, ...]:
    fields = lines.take("number of sample rates")
    text = fields[0]
    rates: list[Rate] = []
    if any(fields[1:]) and is_instant(lines.ahead()):
        return (_rate(lines.number, fields),)  # the number is left out, and this is the only rate
    if any(fields[1:]) or not re.fullmatch(r"[0-9]{1,5}", text):
        raise field_error(
            lines.number, 1, "number of sample rates", ",".join(fields), "a whole number, alone in its line"
        )
    if int(text) == 0 and is_instant(lines.ahead()):
        return ()  # without the line that the standard wants after 0
    for _ in range(max(int(text), 1)):
        fields = lines.take("sample rate, last sample")
        if int(text) <= 1 and fields[:2] == ["0", "0"]:
            return ()  # how many samples there are is not told either
        rate = _rate(lines.number, fields)
        if rates and rate.end_sample <= rates[-1].end_sample:
            right = f"more than the {rates[-1].end_sample} of the rate before"
            raise field_error(lines.number, 2, "last sample", fields[1], right)
        rates.append(rate)
    return tuple(rates)


def _rate(line: int, fields: Sequence[str]) -> Rate:
    if len(fields) < 2:
        raise BadRecording(f"line {line}: has {len(fields)} field; it should have a sample rate and its last sample")
    if any(fields[2:]):
        right = "left out: a line has one rate and its last sample, decimals after a point"
        raise field_error(line, 3, "after the last sample", fields[2], right)
    hz, end = _exact(_without_unit(fields[0])), _exact(fields[1])
    if hz is None or not (hz == 0 or Decimal("1e-6") <= hz <= 10**9):
        raise field_error(line, 1, "sample rate", fields[0], "a number of Hz from 0.000001 to 10^9, or 0")
    if end is None or not 0 < end < 1 << 62 or end != int(end):
        raise field_error(line, 2, "last sample", fields[1], "a whole number, counted from 1")
    return Rate(format(hz, "f"), int(end))


def _exact(text: str) -> Decimal | None:
    """The number as written; None when it is none, or one with more digits than any recorder writes."""
    if len(text) > 60 or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    return number if number == 0 or -40 < number.adjusted() < 40 else None


def _multiplier(lines: _Lines) -> str:
    first = lines.ahead()
    if "," in first and (lines.blank() or _codes_follow(lines)):  # blank, or left out
        if lines.blank():
            lines.take("time stamp multiplier", may_be_blank=True)
        return "1"
    if not first or ("," in first and not first[0].isdecimal()):
        return "1"
    text = ",".join(lines.take("time stamp multiplier")).strip(",")
    if not text:
        return "1"
    number = _exact(text)
    if number is None or not Decimal("1e-12") <= number < 10**12:
        raise field_error(
            lines.number, 1, "time stamp multiplier", text, "a positive number, its decimals after a point"
        )
    return format(number, "f")


def _codes_follow(lines: _Lines) -> bool:
    """Whether the next line has the time codes, and not a multiplier with a decimal comma, which may look like them: 0,5."""
    line, after = lines.ahead(), lines.ahead(2)
    if not _are_codes(line):
        return False
    likely = not _DECIMAL_COMMA.fullmatch(line) or not line.strip("0,")
    return likely or (bool(_QUALITY.fullmatch(after)) and not _are_codes(after))


def _are_codes(line: str) -> bool:
    fields = [field.strip(_BLANK) for field in line.split(",")]
    return len(fields) == 2 and all(map(_is_code, fields))


def _is_code(text: str) -> bool:
    return text.lower() in ("", "x") or offset_seconds(text) is not None


def _time_codes(lines: _Lines, revision: int) -> list[str]:
    """Time code and local code, which the older revisions do not know; there another line may follow, and is passed over."""
    if revision != 2013:
        quality = _QUALITY.fullmatch(lines.ahead(2)) is not None
        line = lines.ahead()
        likely = quality or (_CODE_BEGINS.match(line) and not _DECIMAL_COMMA.fullmatch(line))
        alone = bool(line) and _is_code(line) and not line.isdecimal()
        if not alone and (line.count(",") != 1 or not likely):
            return []
        fields = lines.take("time code, local code")
    elif not lines.blank() and _QUALITY.fullmatch(lines.ahead()) and not _are_codes(lines.ahead()):
        return []  # left out: the time quality follows
    else:
        fields = _optional(lines, "time code, local code")
    if any(fields[2:]):
        raise field_error(lines.number, 3, "after the local code", fields[2], "left out: a line has two codes")
    for position, (what, code) in enumerate(zip(("time code", "local code"), fields, strict=False), 1):
        if not _is_code(code):
            right = "an offset like 0, -4, -5h30, -0500 or +01:00, UTC, or x"
            raise field_error(lines.number, position, what, code, right)
    return fields


def _quality(lines: _Lines, revision: int, codes: Sequence[str]) -> list[str]:
    if revision != 2013 and not (codes and _QUALITY.fullmatch(lines.ahead())):
        return []
    return _optional(lines, "time quality, leap second")


def _optional(lines: _Lines, what: str) -> list[str]:
    return lines.take(what, may_be_blank=True) if lines.ahead() else []
