"""The two lines of a CFG file that say when: the first sample and the trigger (IEEE C37.111-2013, 7.4.8; 1991 and 1999 alike)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from ctingress.refuse import field_error

NS = 1_000_000_000
_DAY = re.compile(r"([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4}|[0-9]{2})")
_ISO_DAY = re.compile(r"([0-9]{4})[/.-]([0-9]{1,2})[/.-]([0-9]{1,2})")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[.,:]([0-9]*))?")
_YEARS = range(1934, 2079)
"""Those that BTrDB has room for as nanoseconds."""


class Lines(Protocol):
    """Where the lines come from; number: of the line taken last."""

    number: int

    def take(self, what: str) -> list[str]:
        """The next line's fields, trimmed."""

    def word_ahead(self) -> bool:
        """Whether the next line that is not blank begins with a letter."""


@dataclass(frozen=True)
class Instants:
    """start_ns, trigger_ns: first sample and trigger in ns since 1970-01-01T00:00:00 of the recorder's clock; None: no trigger is told.

    decimals: how many the more exact of the two has in its seconds.
    """

    start_ns: int
    trigger_ns: int | None
    decimals: int


@dataclass(frozen=True)
class _Written:
    """A line as it stands. numbers: the first two of the date, in the order in which they are written; None: an ISO date."""

    line: int
    what: str
    text: str
    year: int
    numbers: tuple[int, int]
    iso: bool
    clock_ns: int
    decimals: int


def read_instants(lines: Lines, revision: int) -> Instants:
    """Takes both lines.

    1991 writes the month first, later revisions the day. Where that makes no date of one of the lines and the other order makes
    dates of both, the recorder has the other order. Raises BadRecording naming line and field.
    """
    start = _take(lines, "first sample", revision)
    assert start is not None
    trigger = _take(lines, "trigger", revision)
    both = [start] if trigger is None else [start, trigger]
    month_first = revision == 1991
    if not all(_date(one, month_first) for one in both) and all(_date(one, not month_first) for one in both):
        month_first = not month_first
    trigger_ns = None if trigger is None else _ns(trigger, month_first, revision)
    return Instants(_ns(start, month_first, revision), trigger_ns, max(one.decimals for one in both))


def is_instant(line: str) -> bool:
    """Whether a line begins with a date."""
    return bool(_DAY.match(line) or _ISO_DAY.match(line))


def _form(revision: int) -> str:
    return "mm/dd/yyyy" if revision == 1991 else "dd/mm/yyyy"


def _take(lines: Lines, what: str, revision: int) -> _Written | None:
    if what == "trigger" and lines.word_ahead():
        return None  # its line is blank or left out, and the encoding follows
    fields = [" ".join(field.split()) for field in lines.take(f"date and time of {what}")]
    fields = [re.sub(" ?([/:.-]) ?", r"\1", field) for field in fields]  # some write 2: 5: 1.5
    while len(fields) > 1 and not fields[-1]:
        fields.pop()
    if len(fields) == 1 and re.search(r"[ \tT]", fields[0]):
        fields = re.split(r"[ \tT]+", fields[0], maxsplit=1)
    text, clock = fields[0], ",".join(fields[1:])  # some write a comma before the fraction of a second
    if what == "trigger" and re.fullmatch(r"[0/.-]*", text):
        return None
    iso, day = _ISO_DAY.fullmatch(text), _DAY.fullmatch(text)
    if iso is not None:
        year, numbers = int(iso[1]), (int(iso[2]), int(iso[3]))
    elif day is not None:
        year, numbers = int(day[3]), (int(day[1]), int(day[2]))
        if len(day[3]) == 2:
            year += 1900 if year >= 70 else 2000
    else:
        raise field_error(lines.number, 1, f"date of {what}", text, _form(revision))
    clock_ns, decimals = _clock(lines.number, what, clock)
    return _Written(lines.number, what, text, year, numbers, iso is not None, clock_ns, decimals)


def _clock(line: int, what: str, text: str) -> tuple[int, int]:
    """ns since midnight, and the number of decimals."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise field_error(line, 2, f"time of {what}", text, "hh:mm:ss with up to nine decimals")
    hours, minutes, seconds = int(found[1]), int(found[2]), int(found[3])
    # 60: a leap second, which POSIX time has not; it is the next minute's first
    if hours > 24 or minutes > 59 or seconds > 60 or (hours == 24 and (minutes or seconds)):
        raise field_error(line, 2, f"time of {what}", text, "a time of day")
    fraction = found[4] or ""
    return (hours * 3600 + minutes * 60 + seconds) * NS + int(fraction.ljust(9, "0")[:9]), len(fraction)


def _date(written: _Written, month_first: bool) -> date | None:
    month, day = written.numbers if month_first or written.iso else written.numbers[::-1]
    try:
        return date(written.year, month, day)
    except ValueError:
        return None


def _ns(written: _Written, month_first: bool, revision: int) -> int:
    day = _date(written, month_first)
    if day is None:
        raise field_error(written.line, 1, f"date of {written.what}", written.text, f"a date, {_form(revision)}")
    if day.year not in _YEARS:
        right = f"in the years {_YEARS[0]} to {_YEARS[-1]}, for which BTrDB has room"
        raise field_error(written.line, 1, f"date of {written.what}", written.text, right)
    return (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400 * NS + written.clock_ns
