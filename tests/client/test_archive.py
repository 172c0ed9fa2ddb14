"""An archive at the desk is the one that the platform would ingest: the same event, the same samples."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from btrdbextras.eventproc import archive, try_handler
from ctingress.describe import event
from ctingress.ingest import Options, _read
from ctingress.open import open_archive
from examples.make_comtrade import ENCODINGS, fault_archive

HERE = ("RequestID", "SubmittedAt")


def rewritten(path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """The archive with its files changed; None: left out."""
    with zipfile.ZipFile(path) as file:
        files = [(name, file.read(name)) for name in file.namelist()]
    with zipfile.ZipFile(path, "w") as file:
        for changed in (change(*one) for one in files):
            if changed is not None:
                file.writestr(*changed)


def of_the_platform(path: Path) -> tuple[dict[str, Any], dict[str, list[tuple[int, float]]]]:
    with open_archive(path) as opened:
        read = [_read(one, Options()) for one in opened.data_sets()]
    points = {}
    for described, samples in read:
        for stream, row in zip(described.streams, samples.values, strict=True):
            times = described.start_ns + samples.offsets_ns
            points[str(stream.uuid)] = [
                (int(at), float(value)) for at, value in zip(times, row, strict=True) if not np.isnan(value)
            ]
    return event([one for one, _ in read], path.name, "", "", ()), points


@pytest.mark.parametrize(
    ("encoding", "revision"),
    [(encoding, 2013) for encoding in ENCODINGS]
    + [(encoding, revision) for encoding in ("ASCII", "BINARY") for revision in (1991, 1999)],
)
def test_event_and_samples_are_those_of_the_platform(tmp_path: Path, encoding: str, revision: int) -> None:
    path = tmp_path / "fault.zip"
    fault_archive(path, encoding=encoding, revision=revision)

    told, held, notes = archive.read(str(path))

    expected, points = of_the_platform(path)
    assert {key: value for key, value in told.items() if key not in HERE} == {
        key: value for key, value in expected.items() if key not in HERE
    }
    assert {one.described["Uuid"]: one.points for one in held} == points
    assert bool(notes) == (revision != 2013)


CFG = (
    "North,Relay,{revision}\r\n2,1A,1D\r\n1,IA,A,,A,0.5,1,0,-1,{maximum},1,1,P\r\n1,T,,,0\r\n60\r\n1\r\n1000,4\r\n"
    "10/06/2020,22:59:10.5\r\n10/06/2020,22:59:10.5\r\nASCII\r\n{tail}"
)
DAT = b"1,0,99999,0\r\n2,1000,999999,1\r\n3,2000,,0\r\n4,3000,5,1\r\n"


@pytest.mark.parametrize("revision", [1991, 1999, 2013])
@pytest.mark.parametrize("maximum", ["99998", "9999999"])
def test_a_missing_value_is_what_the_platform_takes_for_one(tmp_path: Path, revision: int, maximum: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.cfg", CFG.format(revision=revision, maximum=maximum, tail="1\r\n"))
        file.writestr("a.dat", DAT)

    _, held, _ = archive.read(str(path))

    assert {one.described["Uuid"]: one.points for one in held} == of_the_platform(path)[1]


@pytest.mark.parametrize(
    ("revision", "tail", "name"),
    [
        (1999, "1\r\n-5h30,-5h30\r\nB,3\r\n", "a"),
        (2013, "1\r\nEST,EST\r\nB,3\r\n", "a"),
        (2013, "1\r\nZ,Z\r\nB,3\r\n", "a"),
        (2013, "1,0\r\n0,0\r\nB,3\r\n", "a"),
        (1999, "1\r\n", "200610,225910500,-4t,North,Relay,Example"),
    ],
)
def test_an_offset_from_utc_that_the_platform_may_see_otherwise_is_refused(
    tmp_path: Path, revision: int, tail: str, name: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.cfg", CFG.format(revision=revision, maximum=1, tail=tail))
        file.writestr(f"{name}.dat", DAT)

    with pytest.raises(ValueError, match="eventproc upload"):
        archive.read(str(path))


@pytest.mark.parametrize(
    "change",
    [
        ("North,Relay", "North,East,Relay"),
        ("1999", "1998"),
        ("1,T,,,0", "1,T,,,7"),
        ("1,1,P", "1,x,P"),
        ("60", "6_0"),
        ("1000,4", "1000,0"),
        ("10.5", "10.5,0"),
    ],
)
def test_what_the_platform_refuses_or_names_otherwise_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "a.zip"
    text = CFG.format(revision=1999, maximum=1, tail="1\r\n")
    assert change[0] in text
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.cfg", text.replace(*change))
        file.writestr("a.dat", DAT)

    with pytest.raises(ValueError, match="eventproc upload"):
        archive.read(str(path))


def test_a_function_is_tried_on_an_archive_without_a_platform(tmp_path: Path) -> None:
    def peak(btrdb: Any, DataSets: Any, File: str) -> str:
        stream = DataSets[0]["Streams"][0]
        points = btrdb.stream_from_uuid(stream["Uuid"]).values(stream["StartNs"], stream["EndNs"] + 1)
        return f"{File} {len(points)} {max(point.value for point, _ in points) > 90}"

    path = tmp_path / "fault.zip"
    fault_archive(path)

    tried = try_handler(peak, path)

    assert (tried.text, tried.error) == ("fault.zip 2400 True", "")


def test_a_recording_without_its_dat_is_told_as_the_platform_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "fault.zip"
    fault_archive(path)
    rewritten(path, lambda name, content: None if name.endswith(".dat") else (name, content))

    told, held, _ = archive.read(str(path))

    error = "there is no DAT file beside this CFG file"
    assert told["DataSets"] == [{"Name": "/fault_1.cfg", "Success": False, "Error": error, "Streams": None}]
    assert (told["Recordings"], held) == ([], [])


def test_what_the_platforms_reader_alone_takes_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "fault.zip"
    fault_archive(path)

    def irregular(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b"4800,2400", b"0,2400") if name.endswith(".cfg") else content

    rewritten(path, irregular)

    with pytest.raises(ValueError, match=r"fault_1.cfg in .*no sample rate.*eventproc upload"):
        archive.read(str(path))
