"""Times and amounts as people give them."""

import datetime
import re
from typing import Any

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_YEAR_2000_NS = 946684800 * 10**9
_MOST = 2**63 - 1  # what the wire holds


def seconds(field: str, value: Any) -> float:
    """Of a number of seconds, a timedelta or text like '90s', '15m', '2h'. Raises TypeError, ValueError naming the field."""
    if isinstance(value, datetime.timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        match = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d|w)?\s*$", value)
        if match is None:
            raise ValueError("%s %r should be seconds, or text like '90s', '15m', '2h', '7d'" % (field, value))
        found = float(match.group(1)) * _UNITS[match.group(2) or "s"]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value) if abs(value) <= _MOST else float("inf")
    else:
        raise TypeError("%s should be seconds, a timedelta or text like '15m'; it is %s" % (field, _kind(value)))
    if not 0 <= found < float("inf"):
        raise ValueError("%s %s should not be negative, and end some time" % (field, _short(value)))
    return found


def size(field: str, value: Any) -> int:
    """Bytes, of a number of them or text like '512 MiB', '2GB', '2G' (powers of 1024 but for kB, MB, GB)."""
    if isinstance(value, str):
        match = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)(i?)(b?)\s*$", value, re.IGNORECASE)
        if match is None:
            raise ValueError("%s %r should be bytes, or text like '512 MiB', '2 GB'" % (field, value))
        decimal = match.group(4) and not match.group(3)
        found = float(match.group(1)) * (1000 if decimal else 1024) ** _power(match.group(2))
        value = int(found) if found <= _MOST else _MOST + 1
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("%s should be bytes as an int, or text like '512 MiB'; it is %s" % (field, _kind(value)))
    if value < 0:
        raise ValueError("%s %s should not be negative" % (field, _short(value)))
    if value > _MOST:
        raise ValueError("%s should be at most %d bytes, and is more" % (field, _MOST))
    return value


def _power(unit: str) -> int:
    return {"": 0, "k": 1, "m": 2, "g": 3}[unit.lower()]


def moment_ms(field: str, value: Any) -> int:
    """ms since the epoch, of what moment() takes; 0 for None."""
    if value is None:
        return 0
    return max((moment(field, value) - _EPOCH) // datetime.timedelta(milliseconds=1), 1)


def moment(field: str, value: Any) -> datetime.datetime:
    """An aware datetime in UTC, of a datetime (a naive one is UTC, as in btrdb), a timedelta or text like '2h' (so long ago),
    text like '2026-01-31' or '2026-01-31T12:00:00+01:00' (without an offset: UTC), or ns since the epoch as an int.

    Raises TypeError, ValueError naming the field.
    """
    try:
        return _moment(field, value)
    except OverflowError as error:
        raise ValueError("%s %s should be a time in the years 1 to 9999" % (field, _short(value))) from error


def _moment(field: str, value: Any) -> datetime.datetime:
    if isinstance(value, str) and re.match(r"\s*[0-9.]+\s*[a-z]+\s*$", value):
        value = datetime.timedelta(seconds=seconds(field, value))
    if isinstance(value, datetime.timedelta):
        return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds(field, value))
    if isinstance(value, str):
        value = _parsed(field, value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            return value.replace(tzinfo=datetime.timezone.utc)
        return value.astimezone(datetime.timezone.utc)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < _YEAR_2000_NS:
            raise ValueError(
                "%s %d should be ns since the epoch, as in an event; that would be before 2000" % (field, value)
            )
        return _EPOCH + datetime.timedelta(microseconds=value // 1000)
    raise TypeError(
        "%s should be a datetime, a timedelta, text like '2h' or '2026-01-31T12:00:00Z', or ns; it is %s"
        % (field, _kind(value))
    )


def _parsed(field: str, text: str) -> datetime.datetime:
    match = re.match(
        r"\s*(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?)?\s*(Z|z|[+-]\d\d:?\d\d)?\s*$", text
    )
    if match is None:
        raise ValueError(
            "%s %r should be how long ago, as in '2h' or '7d', or a time, as in '2026-01-31' or '2026-01-31T12:00:00Z'"
            % (field, text)
        )
    date, minute, second, fraction, offset = match.groups()
    whole = "%s %s%s" % (date, minute or "00:00", second or ":00")
    offset = "+0000" if offset in (None, "Z", "z") else offset.replace(":", "")
    try:
        found = datetime.datetime.strptime(whole + offset, "%Y-%m-%d %H:%M:%S%z")
    except ValueError as error:
        raise ValueError("%s %r is no time: %s" % (field, text, error)) from error
    micro = int(((fraction or "") + "000000")[:6])
    return found.replace(microsecond=micro)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _kind(value: Any) -> str:
    return "%r (%s)" % (value, type(value).__name__)
