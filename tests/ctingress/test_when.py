"""Offsets of samples to the nanosecond, and where the offset from UTC comes from."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ctingress.read_cfg import read_cfg
from ctingress.refuse import BadRecording
from ctingress.when import Stamps, check_zone, sample_offsets, start_utc_ns

NORTH_ANNA = "/x/200610,230000000,-4t,R108-North Anna #1,APP601,Dominion,M1094.cfg"


def untold(count: int) -> Stamps:
    """No time stamps."""
    return Stamps(np.full(count, -1, np.int64))


@pytest.mark.parametrize(
    "hz", ["960", "1200", "5760", "15360", "59.94", "4800.001", "1e6", "0.1", "333333333", "7", "12345.6789"]
)
def test_sample_k_stands_at_floor_of_k_seconds_over_rate(cfg: Any, hz: str) -> None:
    config = read_cfg(cfg(rates=["1", f"{hz},5000"]))
    got = sample_offsets(config, untold(5000))
    assert got.tolist() == [k * 10**9 * Fraction(hz).denominator // Fraction(hz).numerator for k in range(5000)]


def test_the_next_rate_goes_on_where_the_last_one_ended(cfg: Any) -> None:
    config = read_cfg(cfg(rates=["3", "3,2", "7,5", "1000,8"]))
    second = 2 * 10**9 // 3
    third = second + 3 * 10**9 // 7
    wanted = [
        0,
        10**9 // 3,
        second,
        second + 10**9 // 7,
        second + 2 * 10**9 // 7,
        third,
        third + 10**6,
        third + 2 * 10**6,
    ]
    assert sample_offsets(config, untold(8)).tolist() == wanted


def test_time_stamps_count_only_where_the_rate_is_0(cfg: Any) -> None:
    stamps = Stamps(np.array([0, 7, 9], np.int64))
    assert sample_offsets(read_cfg(cfg(rates=["0", "0,3"], tail=("0.5",))), stamps).tolist() == [0, 3500, 4500]
    assert sample_offsets(read_cfg(cfg(rates=["1", "1000,3"])), stamps).tolist() == [0, 10**6, 2 * 10**6]


def test_a_missing_time_stamp_matters_only_where_the_rate_is_0(cfg: Any) -> None:
    with pytest.raises(BadRecording, match="sample 2 has no time stamp"):
        sample_offsets(read_cfg(cfg(rates=["0", "0,3"])), Stamps(np.array([0, -1, 2], np.int64)))


def test_a_time_stamp_with_decimals_is_not_rounded_before_it_is_multiplied(cfg: Any) -> None:
    config = read_cfg(cfg(rates=["0", "0,2"], tail=("1000",)))
    assert sample_offsets(config, Stamps(np.array([1, 15], np.int64), decimals=1)).tolist() == [100_000, 1_500_000]


@pytest.mark.parametrize(
    ("revision", "decimals", "trigger_decimals", "unit_ns"),
    [(2013, 9, 9, 1), (2013, 6, 6, 1000), (2013, 0, 0, 1000), (2013, 9, 6, 1), (2013, 6, 7, 1), (1999, 9, 9, 1000)],
)
def test_time_stamps_of_2013_are_nanoseconds_where_its_dates_are(
    cfg: Any, revision: int, decimals: int, trigger_decimals: int, unit_ns: int
) -> None:
    start, trigger = (f"10/06/2020,22:59:10.{'0' * count}" for count in (decimals, trigger_decimals))
    config = read_cfg(
        cfg(head=f"N,R,{revision}", rates=["0", "0,3"], start=start, trigger=trigger, tail=("2", "0,0", "0,0"))
    )
    stamps = Stamps(np.array([0, 7, 9], np.int64))
    assert sample_offsets(config, stamps).tolist() == [0, 14 * unit_ns, 18 * unit_ns]


@pytest.mark.parametrize("multiplier", ["0.12345678901234567890", "12345678901.234567890123456789", "1e-12"])
def test_a_multiplier_of_many_digits_is_taken_as_it_is_written(cfg: Any, multiplier: str) -> None:
    config = read_cfg(cfg(rates=["0", "0,3"], tail=(multiplier,)))
    for counts in ([0, 0, 0], [0, 1, 9]):
        wanted = [int(count * 1000 * Fraction(multiplier)) for count in counts]
        assert sample_offsets(config, Stamps(np.array(counts, np.int64))).tolist() == wanted


@pytest.mark.parametrize(
    ("changes", "stamps", "error"),
    [
        ({"rates": ["0", "0,2"], "tail": ("1e11",)}, [0, 1 << 40], "sample 2 stands .* longer than BTrDB has room for"),
        ({"rates": ["1", "0.000001,9"]}, [-1] * 9000, "9000 samples at 0.000001 Hz last longer"),
    ],
)
def test_times_that_nothing_can_hold_are_refused(cfg: Any, changes: Any, stamps: list[int], error: str) -> None:
    with pytest.raises(BadRecording, match=error):
        sample_offsets(read_cfg(cfg(**changes)), Stamps(np.array(stamps, np.int64)))


def test_the_start_of_the_recording_at_north_anna(cfg: Any) -> None:
    config = read_cfg(cfg(start="10/06/2020,22:59:10.350000"))
    assert start_utc_ns(config, NORTH_ANNA, "UTC") == (1_591_844_350_000_000_000 + 350_000_000, "file_name", "-04:00")
    whole = read_cfg(cfg(start="10/06/2020,22:59:10.000000"))
    assert start_utc_ns(whole, NORTH_ANNA, None)[0] == 1_591_844_350_000_000_000


@pytest.mark.parametrize(
    ("code", "hours"),
    [
        ("0", 0.0), ("-4", -4.0), ("+10", 10.0), ("-5h30", -5.5), ("5h45", 5.75), ("-5h", -5.0),
        ("Z", 0.0), ("UTC", 0.0), ("gmt", 0.0), ("-0500", -5.0), ("+01:00", 1.0), ("0530", 5.5), ("-00:30", -0.5),
        ("-4t", -4.0), ("\u22124", -4.0),
    ],
)  # fmt: skip
def test_the_2013_time_code_stands_before_all_else(cfg: Any, code: str, hours: float) -> None:
    config = read_cfg(cfg(head="North,Relay,2013", tail=("1", f"{code},x", "0,0")))
    start, source, _ = start_utc_ns(config, NORTH_ANNA, "+01:00")
    assert (start, source) == (config.start_local_ns - int(hours * 3600) * 10**9, "time_code")


def test_a_time_code_that_does_not_apply_is_passed_over(cfg: Any) -> None:
    config = read_cfg(cfg(head="North,Relay,2013", tail=("1", "x,x", "0,0")))
    assert start_utc_ns(config, "/a.cfg", None) == (config.start_local_ns, "assumed", "+00:00")


def test_an_option_takes_a_zone_or_an_offset(cfg: Any) -> None:
    config = read_cfg(cfg())
    assert start_utc_ns(config, "/a.cfg", "America/New_York") == (
        config.start_local_ns + 4 * 3600 * 10**9,
        "option",
        "America/New_York (-04:00)",
    )
    assert start_utc_ns(config, "/a.cfg", "+05:30")[0] == config.start_local_ns - int(5.5 * 3600) * 10**9


def test_a_zone_that_does_not_exist_is_refused() -> None:
    assert check_zone("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(ValueError, match="neither an offset"):
        check_zone("Mars/Olympus")


@pytest.mark.parametrize(
    "name", ["/a.cfg", "/a,b,c,d,e.cfg", "/200610,2300,north,a,b.cfg", "/200610,230000000,-4t.cfg"]
)
def test_other_file_names_tell_no_offset(cfg: Any, name: str) -> None:
    assert start_utc_ns(read_cfg(cfg()), name, None)[1] == "assumed"
