"""DAT files in four encodings, with the comtrade library as oracle where it is exact."""

from __future__ import annotations

import struct
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import comtrade
import numpy as np
import pytest

from ctingress.open import open_archive
from ctingress.read_cfg import read_cfg
from ctingress.read_dat import read_dat
from ctingress.refuse import BadRecording
from examples.make_comtrade import fault_archive

FIELD = Path(__file__).resolve().parents[3] / "shared" / "comtrade" / "field_recordings.zip"
TWO = ["1,IA,A,,A,0.5,1,0,-32767,32767,1200,5,S", "2,IB,B,,A,2,0,0,-32767,32767,1200,5,S"]
MANY = [f"{k},D{k},,,0" for k in range(1, 19)]


def binary(kind: str, rows: list[tuple[Any, ...]]) -> bytes:
    return b"".join(struct.pack(kind, *row) for row in rows)


def test_ascii_values_are_scaled_and_missing_ones_are_not_a_number(cfg: Any) -> None:
    samples = read_dat(b"1,0,10,0\r\n2,1000,99999,1\r\n3,2000,,0\r\n", read_cfg(cfg()))
    assert samples.values[0][0] == 6.0
    assert np.isnan(samples.values[0][1:]).all()
    assert samples.values[1].tolist() == [0.0, 1.0, 0.0]
    assert samples.missing == 2


@pytest.mark.parametrize(
    ("head", "limits", "missing"),
    [
        ("N,R", "-99999,99998", "999999"),
        ("N,R,1999", "-99999,99998", "99999"),
        ("N,R,1999", "-32767,32767", "99999"),
        ("N,R,2013", "-2147483647,2147483647", ""),
        ("N,R,2013", "-99999,99998", "99999"),
    ],
)
def test_each_revision_has_its_own_sentinel_for_a_missing_value(cfg: Any, head: str, limits: str, missing: str) -> None:
    analog = f"1,IA,A,,A,1,0,0,{limits},1,1,P"
    config = read_cfg(cfg(head=head, analogs=[analog], statuses=[], rates=["1", "1000,3"], start="06/10/2020,00:00:00"))
    data = b"1,0,99999\n2,1,999999\n3,2,\n"
    values = read_dat(data, config).values[0]
    wanted = ["nan" if text in (missing, "") else f"{text}.0" for text in ("99999", "999999", "")]
    assert list(map(str, values.tolist())) == wanted


@pytest.mark.parametrize(
    ("encoding", "kind", "missing"),
    [("BINARY", "<IIhhHH", -32768), ("BINARY32", "<IIiiHH", -(2**31)), ("FLOAT32", "<IIffHH", -3.4028234663852886e38)],
)
def test_binary_values_status_bits_and_sentinels(cfg: Any, encoding: str, kind: str, missing: float) -> None:
    config = read_cfg(cfg(head="N,R,2013", analogs=TWO, statuses=MANY, encoding=encoding, rates=["1", "1000,2"]))
    data = binary(kind, [(1, 0, 10, missing, 0b1000000000000001, 0b10), (2, 1000, -10, 4, 0, 0b01)])
    samples = read_dat(data, config)
    assert samples.values[0].tolist() == [6.0, -4.0]
    assert np.isnan(samples.values[1][0]) and samples.values[1][1] == 8.0
    on = [[row for row in range(18) if samples.values[2 + row][k]] for k in range(2)]
    assert on == [[0, 15, 17], [16]]
    assert samples.missing == 1


def test_the_sentinel_of_1991_is_ffff(cfg: Any) -> None:
    config = read_cfg(
        cfg(
            head="N,R",
            analogs=["1,IA,A,,A,1,0,0,-1,1"],
            statuses=[],
            rates=["1", "1000,2"],
            encoding="BINARY",
            start="06/10/2020,00:00:00",
            trigger="06/10/2020,00:00:00",
            tail=(),
        )
    )
    samples = read_dat(binary("<IIh", [(1, 0, -1), (2, 1, -32768)]), config)
    assert np.isnan(samples.values[0][0]) and samples.values[0][1] == -32768.0


def test_binary_time_stamps_that_run_over_go_on(cfg: Any) -> None:
    config = read_cfg(cfg(rates=["0", "0,3"], analogs=TWO[:1], statuses=[], encoding="BINARY"))
    samples = read_dat(binary("<IIh", [(1, 0, 1), (2, 2**32 - 10, 1), (3, 5, 1)]), config)
    assert samples.offsets_ns.tolist() == [0, (2**32 - 10) * 1000, (2**32 + 5) * 1000]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"1,0,10\r\n", "DAT line 1 has 3 fields; it should have 4"),
        (b"1,0,10,0\r\n2,0,ten,0\r\n", "DAT line 2, field 3 \\(analog value\\): is 'ten'"),
        (b"1,0,10,2\r\n", "DAT line 1, field 4 \\(status\\): is '2'; it should be 0 or 1"),
        (b"1,0,1_0,0\r\n", "DAT line 1, field 3 \\(value\\): is '1_0'; it should be a number"),
        (b"1,0,0,5,0\r\n", "DAT line 1 has 5 fields; it should have 4"),
        (b"\t\r\n", "the DAT file holds no sample"),
        (b"\xff\xfe", "the DAT file holds no sample"),
        (b"\xef\xbb\xbf\r\n", "the DAT file holds no sample"),
    ],
)
def test_ascii_that_is_wrong_is_refused_with_line_and_field(cfg: Any, data: bytes, error: str) -> None:
    with pytest.raises(BadRecording, match=error):
        read_dat(data, read_cfg(cfg()))


def test_a_binary_file_that_is_cut_off_is_refused(cfg: Any) -> None:
    config = read_cfg(cfg(analogs=TWO, statuses=MANY, encoding="BINARY", rates=["1", "1000,2"]))
    with pytest.raises(BadRecording, match="33 bytes, 1 more than 2 samples of 16"):
        read_dat(b"\1" * 33, config)
    with pytest.raises(BadRecording, match="holds 1 samples; by the CFG file there should be 2: it is cut off"):
        read_dat(b"\1" * 16, config)


@pytest.mark.parametrize("end", [b"", b"\x1a", b"\r\n", b"\0" * 16, b"\0" * 480, b"\x1a" * 24])
def test_what_old_systems_put_after_the_last_sample_is_no_sample(cfg: Any, end: bytes) -> None:
    config = read_cfg(cfg(analogs=TWO, statuses=MANY, encoding="BINARY", rates=["1", "1000,2"]))
    assert read_dat(b"\1" * 32 + end, config).values.shape == (20, 2)


def test_samples_beyond_the_last_that_the_cfg_names_are_read(cfg: Any) -> None:
    config = read_cfg(cfg(analogs=TWO, statuses=MANY, encoding="BINARY", rates=["1", "1000,2"]))
    assert read_dat(b"\1" * 48, config).offsets_ns.tolist() == [0, 10**6, 2 * 10**6]


def test_ascii_that_is_cut_off_between_two_lines_is_refused(cfg: Any) -> None:
    with pytest.raises(BadRecording, match="holds 2 samples; by the CFG file there should be 3"):
        read_dat(b"1,0,10,0\r\n2,1000,20,1\r\n", read_cfg(cfg()))


@pytest.mark.parametrize(
    "data",
    [
        b"1,0,10,0\r\r\n2,1000,20,1\r\r\n3,2000,30,0\r\r\n",
        b"1,0,10,0\r2,1000,20,1\r3,2000,30,0",
        b"\r\n1, 0, 10, 0,\r\n\r\n2,1000, 20,1,,\r\n3,2000,30,0\r\n\r\n\x1a",
        "1,0,10,0\r\n2,1000,20,1\r\n3,2000,30,0\r\n".encode("utf-16"),
        "\ufeff1,0,10,0\r\n2,1000,20,1\r\n3,2000,30,0\r\n".encode(),
    ],
    ids=["doubled line ends", "CR alone", "blank lines and commas", "UTF-16", "byte order mark"],
)
def test_ascii_is_read_whatever_stands_around_the_fields(cfg: Any, data: bytes) -> None:
    samples = read_dat(data, read_cfg(cfg()))
    assert samples.values.tolist() == [[6.0, 11.0, 16.0], [0.0, 1.0, 0.0]]


def test_99999_is_missing_however_it_is_written(cfg: Any) -> None:
    samples = read_dat(b"1,0,99999.0,0\r\n2,1,+99999,1\r\n3,2,9.9999e4,0\r\n", read_cfg(cfg()))
    assert samples.missing == 3


def test_time_stamps_are_taken_as_they_are_written(cfg: Any) -> None:
    irregular = read_cfg(cfg(rates=["0", "0,3"]))
    assert read_dat(b"1,0.25,1,0\n2,1.5,1,0\n3,7,1,0\n", irregular).offsets_ns.tolist() == [250, 1500, 7000]
    for stamp in ("nan", "inf", "1e300", "-5", "9" * 30, ""):
        data = f"1,0,1,0\n2,{stamp},1,0\n3,7,1,0\n".encode()
        with pytest.raises(BadRecording, match="sample 2 has no time stamp"):
            read_dat(data, irregular)
        assert read_dat(data, read_cfg(cfg())).offsets_ns.tolist() == [0, 10**6, 2 * 10**6]


@pytest.mark.parametrize("revision", [1991, 1999, 2013])
@pytest.mark.parametrize("encoding", ["ASCII", "BINARY", "BINARY32", "FLOAT32"])
def test_generated_recordings_are_read_as_the_oracle_reads_them(tmp_path: Path, revision: int, encoding: str) -> None:
    if revision < 2013 and encoding in ("BINARY32", "FLOAT32"):
        with pytest.raises(ValueError, match="2013"):
            fault_archive(tmp_path / "a.zip", revision=revision, encoding=encoding)
        return
    fault_archive(
        tmp_path / "a.zip", revision=revision, encoding=encoding, start=datetime(2020, 6, 10, 22, 59, 10, 350000)
    )
    compare_with_oracle(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize("encoding", ["ASCII", "BINARY", "BINARY32", "FLOAT32"])
def test_cff_files_are_read_as_the_oracle_reads_them(tmp_path: Path, encoding: str) -> None:
    fault_archive(tmp_path / "a.zip", encoding=encoding, cff=True)
    compare_with_oracle(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize("decimals", [6, 9])
def test_time_stamps_of_an_irregular_recording_are_read_as_the_oracle_reads_them(cfg: Any, decimals: int) -> None:
    instant = f"10/06/2020,22:59:10.{'5' * decimals}"
    text = cfg(head="N,R,2013", rates=["0", "0,3"], start=instant, trigger=instant, tail=("2", "0,0", "0,0"))
    data = "1,0,10,0\r\n2,1500,20,1\r\n3,4000,30,0\r\n"
    oracle = comtrade.Comtrade(ignore_warnings=True)
    oracle.read(text, data)
    seconds = read_dat(data.encode(), read_cfg(text)).offsets_ns / 1e9
    assert np.allclose(seconds, list(oracle.time), rtol=1e-6, atol=0)


@pytest.mark.skipif(not FIELD.exists(), reason="the field recordings are not beside this clone (../shared/comtrade)")
def test_field_recordings_are_read_as_the_oracle_reads_them(tmp_path: Path) -> None:
    assert compare_with_oracle(FIELD, tmp_path) >= 4


def compare_with_oracle(path: Path, folder: Path) -> int:
    """How many data sets of the archive were read; each must have the oracle's values."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "x")
    read = 0
    with open_archive(path) as opened:
        for data_set in opened.data_sets():
            try:
                config, samples, _, _ = data_set.read()
            except BadRecording:
                assert "__MACOSX" in data_set.name
                continue
            oracle = comtrade.Comtrade(ignore_warnings=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                oracle.load(str(folder / "x" / data_set.name[1:]))
            analogs = np.array([list(channel) for channel in oracle.analog], float).reshape(oracle.analog_count, -1)
            statuses = np.array([list(channel) for channel in oracle.status], float).reshape(oracle.status_count, -1)
            assert np.allclose(samples.values[: len(analogs)], analogs, rtol=1e-6, atol=1e-9, equal_nan=True)
            assert np.array_equal(samples.values[len(analogs) :], statuses)
            seconds = (oracle.start_timestamp - datetime(1970, 1, 1)).total_seconds()
            assert config.start_local_ns / 1e9 == pytest.approx(seconds, abs=1e-6)
            read += 1
    return read
