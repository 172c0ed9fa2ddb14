"""Times and amounts as people give them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from btrdbextras.eventproc import since

UTC = datetime.UTC
NOON = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "given",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(datetime.timezone(datetime.timedelta(hours=-5))),
        "2026-01-31T12:00:00Z",
        "2026-01-31 12:00",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T12:00:00.000000000Z",
        1769860800000000000,
    ],
)
def test_a_time_in_each_form_is_the_same_instant(given: Any) -> None:
    assert since.moment("since", given) == NOON
    assert since.moment_ms("since", given) == 1769860800000


def test_a_day_begins_at_midnight_in_utc() -> None:
    assert since.moment("since", "2026-01-31") == NOON.replace(hour=0)


@pytest.mark.parametrize("given", ["90m", "1.5h", datetime.timedelta(minutes=90), "5400s"])
def test_how_long_ago_is_counted_from_now(given: Any) -> None:
    before = datetime.datetime.now(UTC)
    found = since.moment("since", given)
    after = datetime.datetime.now(UTC)

    assert before <= found + datetime.timedelta(minutes=90) <= after


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("yesterday", "since 'yesterday' should be how long ago"),
        ("2026-02-30", "since '2026-02-30' is no time"),
        ("-2h", "should be how long ago"),
        (1769860800, "should be ns since the epoch"),
        (True, "should be a datetime"),
        (1.5, "should be a datetime"),
        (datetime.timedelta(hours=-1), "should not be negative"),
        ("9999999d", "since '9999999d' should be a time in the years 1 to 9999"),
        ("99999999999999999d", "since '9+d' should be a time in the years 1 to 9999"),
        (10**23, "since 1(0+) should be a time in the years 1 to 9999"),
        ("0001-01-01T00:00:00+01:00", "should be a time in the years 1 to 9999"),
    ],
)
def test_what_is_no_time_is_refused_with_what_would_be_right(given: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        since.moment("since", given)


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [(1024, 1024), ("512 MiB", 512 << 20), ("512M", 512 << 20), ("2 GB", 2 * 10**9), ("2g", 2 << 30), ("100", 100)],
)
def test_amounts_of_memory(given: Any, bytes_: int) -> None:
    assert since.size("memory", given) == bytes_


@pytest.mark.parametrize("given", ["much", -1, 1.5, True, "1 TB", 2**63, "9999999999 GiB", "9" * 400])
def test_what_is_no_amount_is_refused(given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="memory"):
        since.size("memory", given)
