"""Odd but plausible recordings, as real recorders and transfers make them: each is read right, or refused with file, line and field."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ctingress.open import open_archive
from ctingress.recording import Config, Samples
from ctingress.refuse import BadRecording

from .conftest import DAT, Cfg, MakeZip, cfg_text

MS = 1_000_000
ROWS = [(10, 0), (20, 1), (30, 0)]
EVEN = [0, MS, 2 * MS]
BINARY = b"".join(struct.pack("<IIhH", 7 + n, 1000 * n, *row) for n, row in enumerate(ROWS))
WRAPPED = b"".join(struct.pack("<IIhH", (0xFFFFFFFF + n) % (1 << 32), 0xFFFFFFFF, *row) for n, row in enumerate(ROWS))
NAMELESS = ["1,,,,,5e-1,+1.0E+0,,,,,,"]


def read(make_zip: MakeZip, members: dict[str, Any]) -> tuple[Config, Samples]:
    with open_archive(make_zip(members)) as archive:
        config, samples, _, _ = next(archive.data_sets()).read()
    return config, samples


def lines(*numbers: int) -> bytes:
    """The usual samples under other numbers."""
    return b"".join(b"%d,%d,%d,%d\n" % (n, 1000 * k, *ROWS[k]) for k, n in enumerate(numbers))


@pytest.mark.parametrize(
    ("cfg", "dat", "offsets"),
    [
        ("\ufeff" + cfg_text() + "\r\n \r\n", "\ufeff".encode() + DAT, EVEN),
        (cfg_text().replace("\r\n", "\r"), DAT.replace(b"\r\n", b"\r"), EVEN),
        (cfg_text().replace(",", "\t,  "), DAT.replace(b",", b" ,\t"), EVEN),
        (cfg_text() + "\x1a", DAT + b"\x1a", EVEN),
        (cfg_text().rstrip() + "\x1a\x1a", DAT.rstrip() + b"\x1a", EVEN),
        (cfg_text(analogs=NAMELESS, statuses=["1,,,,"]), b"1,0,1.0E+1,0\n2,,2.e1,1\n3,7,+30,0\n", EVEN),
        (cfg_text(analogs=["1,IA,A,L,A,0.5,1,-33.3,,,1200,5,s"]), DAT, EVEN),
        (cfg_text(head="North,Relay", statuses=["1,TRIP,0"], start="6/9/2020,2:5:1.5", tail=()), DAT, EVEN),
        (cfg_text(start="10/ 6/2020, 2: 5: 1.5", trigger=" 10/ 6/2020  2: 5: 1.5"), DAT, EVEN),
        (cfg_text(start="10/06/2020,23:59:60"), DAT, EVEN),
        (cfg_text(start="10/06/2020,24:00:00.000"), DAT, EVEN),
        (cfg_text(rates=["0"]), DAT, EVEN),
        (cfg_text(rates=["0", "0,0"]), DAT, EVEN),
        (cfg_text(rates=["1000,3"]), DAT, EVEN),
        (cfg_text(rates=["1", "1.0E+3,3.0"]), DAT, EVEN),
        (cfg_text(rates=["1", "1000 Hz,3"], frequency="60Hz"), DAT, EVEN),
        (cfg_text(rates=["1", "0,0"]), DAT, EVEN),
        (cfg_text(start="10/06/2020,22:59:10:350", trigger=""), DAT, EVEN),
        (cfg_text().replace("10/06/2020,22:59:10.351000\r\n", ""), DAT, EVEN),
        (cfg_text(rates=["2", "1000,1", "500,2"]), DAT, [0, MS, 3 * MS]),
        (cfg_text(), lines(0, 1, 2), EVEN),
        (cfg_text(), lines(65535, 0, 1), EVEN),
        (cfg_text(analogs=["1,IA\0\0,A\0,L\0,A\0,0.5,1,0,,,1200,5,S"]), DAT, EVEN),
        (cfg_text(encoding="binary"), BINARY, EVEN),
        (cfg_text(encoding="Binary"), WRAPPED + b"\x1a", EVEN),
    ],
)
def test_what_has_one_meaning_is_read(make_zip: MakeZip, cfg: str, dat: bytes, offsets: list[int]) -> None:
    _, samples = read(make_zip, {"a.CfG": cfg, "A.dAT": dat})
    assert samples.values.tolist() == [[6.0, 11.0, 16.0], [0.0, 1.0, 0.0]]
    assert samples.offsets_ns.tolist() == offsets


@pytest.mark.parametrize(
    ("cfg", "dat", "error"),
    [
        (cfg_text(rates=["2", "1000,2", "500,9"]), DAT, "holds 3 samples; by the CFG file there should be 9"),
        (cfg_text(encoding="BINARY"), BINARY[:-1], "the DAT file has 35 bytes, 11 more than 2 samples"),
        (cfg_text(encoding="BINARY"), DAT, "the DAT file is in ASCII, the CFG file says BINARY"),
        (cfg_text(encoding="FLOAT32"), BINARY, "the DAT file is in BINARY, the CFG file says FLOAT32"),
        (cfg_text(encoding="BINARY"), DAT + b"\x1a", "the DAT file is in ASCII, the CFG file says BINARY"),
        (cfg_text(encoding="ASCII"), BINARY, "the DAT file begins with a binary number, the CFG file says ASCII"),
        (cfg_text(start="10/06/2020,23:59:61"), DAT, "CFG line 8, field 2"),
        (cfg_text(start="10/06/2020,24:00:01"), DAT, "CFG line 8, field 2"),
        (cfg_text(rates=["0", "0,3"]), b"1,0,10,0\n2,,20,1\n3,2,30,0\n", "sample 2 has no time stamp"),
        (cfg_text(), DAT.replace(b",", b";"), "DAT line 1 has 1 field"),
        (cfg_text(), DAT.replace(b"20,", b"2\xb2,"), "DAT line 2, field 3"),
        (cfg_text(rates=["1", "1000"]), DAT, "CFG line 7"),
        (cfg_text(), DAT.replace(b"2,1000", b"x,1000"), "DAT line 2, field 1 .sample number.: is 'x'"),
        (
            cfg_text(statuses=["1,T,,,0", "2,U,,,0"]).replace("3,1A,2D", "2,1A,1D"),
            DAT,
            "CFG line 5, field 1 .line freq",
        ),
    ],
)
def test_what_has_none_is_refused_with_where_it_stands(make_zip: MakeZip, cfg: str, dat: bytes, error: str) -> None:
    with pytest.raises(BadRecording, match=error):
        read(make_zip, {"a.cfg": cfg, "a.dat": dat})


def test_a_leap_second_is_the_next_minutes_first(make_zip: MakeZip, cfg: Cfg) -> None:
    leap, _ = read(make_zip, {"a.cfg": cfg(start="30/06/2015,23:59:60.25"), "a.dat": DAT})
    after, _ = read(make_zip, {"a.cfg": cfg(start="01/07/2015,00:00:00.25"), "a.dat": DAT})
    assert leap.start_local_ns == after.start_local_ns


@pytest.mark.parametrize(
    ("cfg", "dat", "error"),
    [
        (cfg_text(head="N,R,2013", frequency="?"), DAT, "CFG line 9, field 1 .line frequency"),
        (cfg_text(head="N,R,2013"), DAT.replace(b"20,", b"?,"), "DAT line 18, field 3 .analog value"),
        ("\r\n", DAT, "CFG line 5 .station, device, revision.: the file ends before it"),
    ],
)
def test_lines_of_a_cff_are_counted_from_the_beginning_of_the_file(
    make_zip: MakeZip, cfg: str, dat: bytes, error: str
) -> None:
    head = "--- file type: INF ---\r\n\r\n\r\n--- file type: CFG ---\r\n"
    whole = f"{head}{cfg}--- file type: DAT ASCII ---\r\n".encode() + dat
    with pytest.raises(BadRecording, match=error):
        read(make_zip, {"a.cff": whole})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_cff_of_any_unicode_is_read(make_zip: MakeZip, cfg: Cfg, encoding: str) -> None:
    text = f"--- File Type: cfg ---\r\n{cfg(head='N,R,2013')}--- file type: DAT ascii ---\r\n" + DAT.decode()
    _, samples = read(make_zip, {"a.CFF": text.encode(encoding)})
    assert samples.values.tolist() == [[6.0, 11.0, 16.0], [0.0, 1.0, 0.0]]
