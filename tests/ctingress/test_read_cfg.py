"""CFG files: the three revisions, what recorders deviate in, and what is refused with line and field."""

from __future__ import annotations

from typing import Any

import pytest

from ctingress.read_cfg import read_cfg
from ctingress.refuse import BadRecording

DAY = 1_591_747_200_000_000_000  # 2020-06-10
START = DAY + (22 * 3600 + 59 * 60 + 10) * 10**9 + 350_000_000


def test_a_1999_file_says_all_that_it_holds(cfg: Any) -> None:
    config = read_cfg(cfg())
    assert (config.station, config.device, config.revision) == ("North", "Relay", 1999)
    current, trip = config.channels
    assert (current.name, current.phase, current.circuit, current.unit) == ("IA", "A", "Line 4", "A")
    assert (current.a, current.b, current.primary, current.secondary, current.ps) == (0.5, 1.0, 1200.0, 5.0, "S")
    assert current.to_primary == 240.0
    assert (trip.kind, trip.name, trip.circuit, trip.normal) == ("status", "TRIP", "Line 4", 0)
    assert config.start_local_ns == START
    assert config.trigger_local_ns == START + 1_000_000
    assert [(rate.hz, rate.end_sample) for rate in config.rates] == [("1000", 3)]


def test_1991_writes_the_month_first_and_fewer_fields(cfg: Any) -> None:
    config = read_cfg(
        cfg(
            head="North,Relay",
            analogs=["1,IA,A,Line 4,A,0.5,1,0,-32767,32767"],
            statuses=["1,TRIP,1"],
            start="06/10/20,22:59:10.35",
            tail=(),
        )
    )
    assert config.revision == 1991
    assert config.start_local_ns == START
    assert (config.channels[0].ps, config.channels[0].to_primary) == ("", 1.0)
    assert config.channels[1].normal == 1


def test_2013_has_time_codes_and_time_quality(cfg: Any) -> None:
    config = read_cfg(cfg(head="North,Relay,2013", tail=("1", "-5h30,-5h30", "B,3")))
    assert (config.time_code, config.local_code, config.time_quality, config.leap_second) == (
        "-5h30",
        "-5h30",
        "B",
        "3",
    )


@pytest.mark.parametrize(("fraction", "ns"), [("123456789", 123456789), ("1", 100000000), ("000000001", 1), ("", 0)])
def test_fractions_of_a_second_are_exact_to_the_nanosecond(cfg: Any, fraction: str, ns: int) -> None:
    config = read_cfg(cfg(start=f"10/06/2020,22:59:10.{fraction}"))
    assert config.start_local_ns == START - 350_000_000 + ns


@pytest.mark.parametrize(
    "start",
    [
        "10-06-2020,22:59:10.35",
        "10/06/20,22:59:10.35",
        "10.06.2020,22:59:10.35",
        "2020-06-10,22:59:10.35",
        "2020/6/10,22:59:10.35",
        "10/06/2020,22:59:10,35",
        "10/06/2020 22:59:10.35",
        "10/06/2020,22:59:10.35,",
        " 10/6/2020 , 22:59:10.35 ",
    ],
)
def test_dates_that_have_one_meaning_are_read(cfg: Any, start: str) -> None:
    assert read_cfg(cfg(start=start)).start_local_ns == START


def test_a_day_above_12_in_the_months_place_is_the_day(cfg: Any) -> None:
    first = read_cfg(cfg(start="23/06/2020,00:00:00"))
    assert read_cfg(cfg(start="06/23/2020,00:00:00")).start_local_ns == first.start_local_ns
    assert read_cfg(cfg(head="North,Relay", start="23/06/2020,00:00:00")).start_local_ns == first.start_local_ns


def test_both_dates_of_a_file_are_written_in_the_same_order(cfg: Any) -> None:
    wrong_way = read_cfg(cfg(start="06/12/2020,23:59:59.9", trigger="06/13/2020,00:00:00.1"))
    right_way = read_cfg(cfg(start="12/06/2020,23:59:59.9", trigger="13/06/2020,00:00:00.1"))
    assert wrong_way.start_local_ns == right_way.start_local_ns
    assert wrong_way.trigger_local_ns == right_way.trigger_local_ns == right_way.start_local_ns + 200_000_000


@pytest.mark.parametrize("trigger", [",", "", "00/00/0000,00:00:00.000000"])
def test_a_recorder_may_tell_no_trigger(cfg: Any, trigger: str) -> None:
    text = cfg(trigger=trigger or ",")
    assert read_cfg(text).trigger_local_ns is None


@pytest.mark.parametrize(
    ("head", "station", "device", "revision"),
    [
        ("North,Relay,1999,", "North", "Relay", 1999),
        ("North, East,Relay,1999,,", "North, East", "Relay", 1999),
        (",,1999", "", "", 1999),
        ("North,Relay,", "North", "Relay", 1991),
    ],
)
def test_commas_at_the_end_of_the_first_line_change_nothing(
    cfg: Any, head: str, station: str, device: str, revision: int
) -> None:
    config = read_cfg(cfg(head=head))
    assert (config.station, config.device, config.revision) == (station, device, revision)


@pytest.mark.parametrize(
    "line",
    [
        "1,IA,A,Line 4,A,0.5,1,0,-32767,32767,1200,5,S,",
        "1,IA,A,Line 4,A,0.5,1,0,-32767,32767,1200,5,",
        "1,IA,A,Line 4,A,0.5,1,0,-32767,32767,1200,5",
        "1,IA,A,Line 4,A,0.5,1,0,-32767,32767",
        "1,IA,A,Line 4,A,0.5,1,,,,,,",
    ],
)
@pytest.mark.parametrize("head", ["N,R", "N,R,1999"])
def test_an_analog_channel_may_leave_out_what_the_other_revision_has_not(cfg: Any, head: str, line: str) -> None:
    (channel, _) = read_cfg(cfg(head=head, analogs=[line], start="01/01/2020,00:00:00")).channels
    assert (channel.name, channel.phase, channel.unit, channel.a, channel.b) == ("IA", "A", "A", 0.5, 1.0)


def test_an_analog_channel_that_fits_no_revision_is_refused_not_guessed(cfg: Any) -> None:
    with pytest.raises(BadRecording, match="line 3: analog channel 1 has 11 fields; it should have 13"):
        read_cfg(cfg(analogs=["1,IA,A,Line 4,A,0.5,1,0,-32767,32767,1200"]))


def test_names_of_1991_may_hold_many_commas(cfg: Any) -> None:
    text = cfg(head="N,R", analogs=["1,IA, east, north,x,A,Line,A,0.5,1,0,-1,1"], statuses=["1,TRIP, zone 2,0"])
    assert [channel.name for channel in read_cfg(text).channels] == ["IA, east, north,x", "TRIP, zone 2"]


def test_lines_that_a_transfer_doubled_are_read(cfg: Any) -> None:
    text = cfg(head="N,R,2013", frequency="", tail=("1", "-5h30,x", "B,0"))
    assert read_cfg(text.replace("\r\n", "\r\r\n")) == read_cfg(text)


def test_blank_lines_between_are_passed_over_and_an_error_still_names_the_line(cfg: Any) -> None:
    blank = "\r\n" + cfg().replace("1000,3\r\n", "\r\n\r\n1000,3\r\n\r\n")
    assert read_cfg(blank) == read_cfg(cfg())
    with pytest.raises(BadRecording, match="line 14, field 1 \\(file type\\)"):
        read_cfg(blank.replace("ASCII", "?"))


def test_a_line_left_blank_is_a_value_left_out(cfg: Any) -> None:
    config = read_cfg(cfg(head="N,R,2013", frequency="", tail=("", "-5h30,x", "B,0")))
    assert (config.line_frequency_hz, config.time_multiplier, config.time_code) == (None, "1", "-5h30")
    assert read_cfg(cfg(head="N,R,2013", tail=(",", "-5h30,x", "B,0"))).time_code == "-5h30"
    for tail in (("1", "", "B,3"), ("1", ",", "B,3"), ("1", "B,3"), (",", "B,3"), ("", ",", "B,3"), ("B,3",)):
        config = read_cfg(cfg(head="N,R,2013", tail=tail))
        assert (config.time_multiplier, config.time_code, config.time_quality) == ("1", None, "B")
    assert read_cfg(cfg(head="N,R,2013", tail=("-5h30,x",))).time_code == "-5h30"
    assert read_cfg(cfg(frequency="60 Hz,")).line_frequency_hz == 60.0


def test_without_a_rate_the_dates_may_follow_at_once_however_they_are_written(cfg: Any) -> None:
    assert read_cfg(cfg(rates=["0"], start="10-06-2020,22:59:10.35")).rates == ()


def test_names_may_hold_commas_hashes_and_spaces(cfg: Any) -> None:
    config = read_cfg(
        cfg(
            head="R108-North Anna, unit #1,APP601,1999",
            analogs=["1,IA, east,A,Line 4,A,0.5,1,0,-32767,32767,1200,5,S"],
            statuses=["1,TRIP, zone 2,,Line 4,0"],
        )
    )
    assert config.station == "R108-North Anna, unit #1"
    assert [channel.name for channel in config.channels] == ["IA, east", "TRIP, zone 2"]
    assert config.channels[0].a == 0.5


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_any_line_ending_and_trailing_blanks_are_read(cfg: Any, ending: str) -> None:
    assert read_cfg(cfg().replace("\r\n", ending) + ending + "\x1a").encoding == "ASCII"


def test_several_rates_and_none(cfg: Any) -> None:
    several = read_cfg(cfg(rates=["2", "1000,10", "60.5,20"]))
    assert [(r.hz, r.end_sample) for r in several.rates] == [("1000", 10), ("60.5", 20)]
    assert [r.hz for r in read_cfg(cfg(rates=["0", "0,20"])).rates] == ["0"]
    assert read_cfg(cfg(rates=["0"])).rates == ()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"head": "North,Relay,1998"}, "line 1, field 3 \\(revision\\): is '1998'"),
        (
            {"analogs": ["1,IA,A,Line 4,A,half,1,0,-32767,32767,1200,5,S"]},
            "line 3, field 6 \\(multiplier a\\): is 'half'",
        ),
        ({"analogs": ["1,IA,A,Line 4,A,nan,1,0,-32767,32767,1200,5,S"]}, "line 3, field 6"),
        ({"analogs": ["1,IA,A,Line 4,A,1,1,0,-32767,32767,1200,5,X"]}, "line 3, field 13 \\(primary or secondary\\)"),
        ({"analogs": ["1,IA,A"]}, "line 3: analog channel 1 has 3 fields"),
        ({"statuses": ["1,TRIP,,,7"]}, "line 4, field 5 \\(normal state\\): is '7'"),
        ({"frequency": "sixty"}, "line 5, field 1 \\(line frequency\\)"),
        ({"rates": ["1", "-1000,3"]}, "line 7, field 1 \\(sample rate\\)"),
        ({"rates": ["1", "1000,many"]}, "line 7, field 2 \\(last sample\\)"),
        (
            {"rates": ["2", "1000,5", "500,5"]},
            "line 8, field 2 \\(last sample\\): is '5'; it should be more than the 5",
        ),
        ({"start": "31/02/2020,00:00:00"}, "line 8, field 1 \\(date of first sample\\)"),
        ({"start": "10/06/2020,25:00:00"}, "line 8, field 2 \\(time of first sample\\)"),
        ({"trigger": "10/06/2020"}, "line 9, field 2 \\(time of trigger\\)"),
        ({"encoding": "BINARY64"}, "line 10, field 1 \\(file type\\): is 'BINARY64'"),
        ({"start": "10/06/9999,00:00:00"}, "line 8, field 1 .*should be in the years 1934 to 2078"),
        ({"rates": ["1", "1e-999999,3"]}, "line 7, field 1 \\(sample rate\\)"),
        ({"rates": ["1", "1000,1e999999999"]}, "line 7, field 2 \\(last sample\\)"),
        ({"rates": ["9" * 5000, "1000,3"]}, "line 6, field 1 \\(number of sample rates\\)"),
        ({"head": "N,R,2013", "tail": ("1", "EST,0", "0,0")}, "line 12, field 1 \\(time code\\): is 'EST'"),
        ({"tail": ("1e-999999",)}, "line 11, field 1 \\(time stamp multiplier\\)"),
        ({"tail": ("none",)}, "line 11, field 1 \\(time stamp multiplier\\)"),
        ({"tail": ("0,5",)}, "line 11, field 1 \\(time stamp multiplier\\): is '0,5'; .* decimals after a point"),
        (
            {"head": "N,R,2013", "tail": ("1,0", "-4,-4", "B,0")},
            "line 11, field 1 \\(time stamp multiplier\\): is '1,0'",
        ),
        ({"head": "N,R,2013", "tail": ("1", "-5h30,EST", "0,0")}, "line 12, field 2 \\(local code\\): is 'EST'"),
        ({"head": "N,R,2013", "tail": ("1", "-5h99,x", "0,0")}, "line 12, field 1 \\(time code\\): is '-5h99'"),
        ({"head": "N,R,2013", "tail": ("1", "-5,5,-5,5", "0,0")}, "line 12, field 3 \\(after the local code\\)"),
        ({"tail": ("1", "-5h99,x", "B,3")}, "line 12, field 1 \\(time code\\): is '-5h99'"),
        ({"tail": ("1", "-5h30,EST")}, "line 12, field 2 \\(local code\\): is 'EST'"),
        ({"frequency": "59,94"}, "line 5, field 1 \\(line frequency\\): is '59,94'"),
        ({"rates": ["1", "1000,5,300"]}, "line 7, field 3 \\(after the last sample\\): is '300'"),
        ({"rates": ["1000,3", "500,6"]}, "line 6, field 1 \\(number of sample rates\\): is '1000,3'"),
        ({"analogs": ["1,IA,A,Line 4,A,1,1,0,-1,1,1e300,1e-300,S"]}, "line 3, field 12 \\(secondary\\)"),
    ],
)
def test_what_is_wrong_is_refused_with_line_and_field(cfg: Any, changes: dict[str, Any], error: str) -> None:
    with pytest.raises(BadRecording, match=error):
        read_cfg(cfg(**changes))


@pytest.mark.parametrize(
    ("head", "line", "unit_at"),
    [
        ("N,R,1999", "1,IA,A,,A,0,123,0,0,-32767,32767,1000,5,P", 6),
        ("N,R,1999", "1,IA,A,,A,0,123,0,0,-32767,32767,1000,5", 6),
        ("N,R,1999", "1,IA,A,,A,0,123,0,5,0,-32767,32767,1000,5,P", 7),
        ("N,R,1999", "1,IA,A,,A,1,0,0,-32767,32767,1000,0,5,0,P", 7),
        ("N,R", "1,IA,A,,A,0,123,0,0,-32767,32767", 6),
        ("N,R", "1,IA,A,,A,0,123,0,5,0,-32767,32767", 7),
        ("N,R,2013", "1,IA, east,A,,A,0,123,0,0,-1,1,1,1,P", 7),
    ],
)
def test_numbers_with_decimal_commas_are_refused_not_read_as_others(
    cfg: Any, head: str, line: str, unit_at: int
) -> None:
    with pytest.raises(
        BadRecording, match=rf"line 3, field {unit_at} \(unit\): is .* a comma seems to stand for a decimal point"
    ):
        read_cfg(cfg(head=head, analogs=[line], start="01/01/2020,00:00:00"))


@pytest.mark.parametrize("unit", ["1", "", "%", "p.u."])
def test_a_unit_may_be_a_number_where_nothing_else_is_wrong(cfg: Any, unit: str) -> None:
    line = f"1,IA,A,Line 4,{unit},0.5,1,0,-32767,32767,1200,5,S"
    assert read_cfg(cfg(analogs=[line])).channels[0].unit == unit


@pytest.mark.parametrize(
    ("tail", "codes"),
    [
        (("1", "-5h30,-5h30", "B,3"), ("-5h30", "-5h30", "B", "3")),
        (("1", "0,0", "0,0"), ("0", "0", "0", "0")),
        (("1", "Z,x"), ("Z", "x", None, None)),
        (("1", "-4,"), ("-4", None, None, None)),
        (("1", "0"), (None, None, None, None)),
        (("1", "-0500,+01:00", ""), ("-0500", "+01:00", None, None)),
        (("-4,-4", "4,0"), ("-4", "-4", "4", "0")),
        (("1", "made by,a program"), (None, None, None, None)),
        (("1", "17,4"), (None, None, None, None)),
        (("1",), (None, None, None, None)),
    ],
)
@pytest.mark.parametrize("head", ["N,R", "N,R,1999"])
def test_the_time_codes_of_2013_are_read_in_a_file_of_an_older_revision(
    cfg: Any, head: str, tail: tuple[str, ...], codes: tuple[str | None, ...]
) -> None:
    config = read_cfg(cfg(head=head, tail=tail))
    assert (config.time_code, config.local_code, config.time_quality, config.leap_second) == codes
    assert config.time_multiplier == "1"


@pytest.mark.parametrize("counts", ["2,1A,1D", "2, 1 a , 1 d", "9,1D,1A,", "1A,1D", ",1A,1D"])
def test_channels_are_counted_however_their_numbers_are_written(cfg: Any, counts: str) -> None:
    assert [c.kind for c in read_cfg(cfg().replace("2,1A,1D", counts)).channels] == ["analog", "status"]


def test_numbers_of_channels_that_contradict_each_other_are_refused(cfg: Any) -> None:
    with pytest.raises(BadRecording, match="line 2, field 3 \\(number of channels\\): is '2A'"):
        read_cfg(cfg().replace("2,1A,1D", "2,1A,2A"))


def test_an_end_of_file_mark_may_stand_in_the_last_line(cfg: Any) -> None:
    assert read_cfg(cfg().rstrip() + "\x1a") == read_cfg(cfg())


def test_the_number_of_rates_may_be_left_out_before_the_only_one(cfg: Any) -> None:
    assert read_cfg(cfg(rates=["1000,3"])).rates == read_cfg(cfg(rates=["1", "1000,3"])).rates
    assert read_cfg(cfg(rates=["0", "0,0"])).rates == ()


@pytest.mark.parametrize("lines", range(1, 10))
def test_a_file_that_ends_early_says_where(cfg: Any, lines: int) -> None:
    cut = "\r\n".join(cfg().split("\r\n")[:lines])
    with pytest.raises(BadRecording, match=f"line {lines + 1} .*: the file ends before it"):
        read_cfg(cut)


@pytest.mark.parametrize("changes", [{"frequency": "6{}x"}, {"start": "10/06/2020,22:59{}x"}, {"encoding": "A{}x"}])
def test_a_field_of_very_many_blanks_is_refused_at_once(cfg: Any, changes: dict[str, str]) -> None:
    blanks = " " * 5_000_000  # what looks at each of them anew does not come to an end
    with pytest.raises(BadRecording, match=r"line [0-9]+, field [12] "):
        read_cfg(cfg(**{key: text.format(blanks) for key, text in changes.items()}))


@pytest.mark.parametrize("text", ["", "\0\0\0", "a", "a,b\n0,0A,0D", "\ufeff,,,\n,,,"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadRecording):
        read_cfg(text)
