"""The generator's files, as the comtrade library reads them."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path

import comtrade
import numpy as np
import pytest

from examples.make_comtrade import CT, FAULT_A, LOAD_A, fault_archive

START = datetime(2020, 6, 10, 22, 59, 10, 350000)


def read(folder: Path, **options: object) -> comtrade.Comtrade:
    fault_archive(folder / "a.zip", start=START, **options)  # type: ignore[arg-type]
    with zipfile.ZipFile(folder / "a.zip") as archive:
        archive.extractall(folder)
    found = comtrade.Comtrade(ignore_warnings=True)
    if options.get("cff"):
        found.load(str(folder / "fault_1.cff"))
    else:
        found.load(str(folder / "fault_1.cfg"), str(folder / "fault_1.dat"))
    return found


@pytest.mark.parametrize(
    ("revision", "encoding", "cff"),
    [
        (revision, encoding, cff)
        for revision in (1991, 1999, 2013)
        for encoding in ("ASCII", "BINARY", "BINARY32", "FLOAT32")
        for cff in (False, True)
        if revision == 2013 or (encoding in ("ASCII", "BINARY") and not cff)
    ],
)
def test_the_simulated_fault_is_in_the_file(tmp_path: Path, revision: int, encoding: str, cff: bool) -> None:
    found = read(tmp_path, revision=revision, encoding=encoding, cff=cff)
    assert found.start_timestamp == START
    assert found.station_name == "North Substation"
    assert found.status_channel_ids == ["52A", "TRIP", "21P1"]
    current = np.array(found.analog[found.analog_channel_ids.index("IA")]) * CT[0] / CT[1]
    cycle = 80
    rms = np.sqrt(np.convolve(current**2, np.ones(cycle) / cycle, mode="valid"))
    assert rms[:cycle].mean() == pytest.approx(LOAD_A, rel=0.02)
    assert FAULT_A <= rms.max() <= 2 * FAULT_A
    breaker = np.array(found.status[0])
    assert breaker[0] == 1 and breaker[-1] == 0


def test_the_broken_pair_ends_in_the_middle_of_a_sample(tmp_path: Path) -> None:
    fault_archive(tmp_path / "a.zip", broken_pair=True)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert len(archive.read("broken.dat")) % (8 + 2 * 7 + 2) == 17


def test_what_a_revision_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2013"):
        fault_archive(tmp_path / "a.zip", revision=1999, encoding="FLOAT32")
