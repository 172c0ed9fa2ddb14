"""Whatever way recordings come in, they become one checked zip, or a clear no."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from ctingress.open import Limits, open_archive
from ctingress.pack import Received, pack
from ctingress.refuse import BadArchive

from .conftest import DAT, Cfg, MakeZip

LIMITS = Limits(100, 1 << 24, 200)


def received(tmp_path: Path, files: Mapping[str, bytes]) -> list[Received]:
    """The files as they would lie after an upload: under other names."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, content in enumerate(files.values()):
        (folder / str(number)).write_bytes(content)
    return [Received(name, folder / str(number)) for number, name in enumerate(files)]


def a_tar(members: Mapping[str, bytes], mode: str = "w:gz", link: str | None = None, encoding: str = "utf-8") -> bytes:
    out = io.BytesIO()
    form = {"encoding": encoding, "format": tarfile.GNU_FORMAT}
    with tarfile.open(fileobj=out, mode=mode, **form) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
        if link is not None:
            about = tarfile.TarInfo("link.cfg")
            about.type, about.linkname = tarfile.SYMTYPE, link
            archive.addfile(about)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:xz", "w:bz2"])
def test_a_tar_becomes_a_zip_of_the_same_members(tmp_path: Path, cfg: Cfg, mode: str) -> None:
    tar = a_tar({"deep/a.cfg": cfg().encode(), "deep/a.dat": DAT}, mode)
    packed = pack(received(tmp_path, {"fault.tar.gz": tar}), tmp_path, LIMITS)
    assert (packed.name, packed.data_sets) == ("fault.tar.gz", ("/deep/a.cfg",))
    with open_archive(packed.path, LIMITS) as archive:
        config, samples, _, _ = next(archive.data_sets()).read()
    assert config.station == "North"
    assert samples.values.shape == (2, 3)


def test_a_zip_is_taken_as_it_is_whatever_its_ending(tmp_path: Path, make_zip: MakeZip, cfg: Cfg) -> None:
    made = make_zip({"a.cfg": cfg(), "a.dat": DAT})
    packed = pack([Received("fault.zic", made)], tmp_path, LIMITS)
    assert (packed.name, packed.path, packed.data_sets) == ("fault.zic", made, ("/a.cfg",))


def test_a_cfg_with_its_dat_is_one_recording(tmp_path: Path, cfg: Cfg) -> None:
    files = received(tmp_path, {"Fault 1.DAT": DAT, "Fault 1.CFG": cfg().encode()})
    packed = pack(files, tmp_path, LIMITS)
    assert (packed.name, packed.data_sets) == ("Fault 1.CFG", ("/Fault 1.CFG",))


@pytest.mark.parametrize(
    ("name", "called", "data_set"),
    [
        ("fault.cff", "fault.cff", "/fault.cff"),
        ("", "archive.cff", "/archive.cff"),
        ("fault.txt", "fault.txt", "/fault.cff"),
    ],
)
def test_a_bare_cff_is_taken_whatever_its_name(tmp_path: Path, cfg: Cfg, name: str, called: str, data_set: str) -> None:
    text = f"--- file type: CFG ---\r\n{cfg()}--- file type: DAT ASCII ---\r\n".encode() + DAT
    packed = pack(received(tmp_path, {name: text}), tmp_path, LIMITS)
    assert (packed.name, packed.data_sets) == (called, (data_set,))


def test_a_tar_of_a_folder_has_names_without_the_folder(tmp_path: Path, cfg: Cfg) -> None:
    packed = pack(received(tmp_path, {"": a_tar({"./a.cfg": cfg().encode(), ".//./a.dat": DAT})}), tmp_path, LIMITS)
    assert (packed.name, packed.data_sets) == ("archive.tar", ("/a.cfg",))


def test_names_in_a_tar_that_are_not_utf_8_are_read(tmp_path: Path, cfg: Cfg) -> None:
    tar = a_tar({"Störung.cfg": cfg().encode(), "Störung.dat": DAT}, encoding="latin-1")
    assert pack(received(tmp_path, {"a.tar": tar}), tmp_path, LIMITS).data_sets == ("/Störung.cfg",)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_compressed_tar_with_any_byte_damaged_is_refused(tmp_path: Path, cfg: Cfg, mode: str) -> None:
    tar = a_tar({"a.cfg": cfg().encode(), "a.dat": DAT}, mode)
    (file,) = received(tmp_path, {"a.tar.gz": tar})
    pack([file], tmp_path, LIMITS)
    for at in range(10, len(tar)):  # gzip's head of 10 bytes holds a time and the packer's system
        file.path.write_bytes(tar[:at] + bytes([tar[at] ^ 0xFF]) + tar[at + 1 :])
        with pytest.raises(BadArchive):
            pack([file], tmp_path, LIMITS)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path, cfg: Cfg, mode: str) -> None:
    tar = a_tar({"a.cfg": cfg().encode(), "a.dat": DAT}, mode)
    ends = len(tar.rstrip(b"\0")) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE if mode == "w" else len(tar)
    (file,) = received(tmp_path, {"a.tar": tar})
    for size in {1, ends // 2, ends - 1, ends + (tarfile.BLOCKSIZE if mode == "w" else -4)}:
        file.path.write_bytes(tar[:size])
        with pytest.raises(BadArchive, match="damaged"):
            pack([file], tmp_path, LIMITS)


def test_a_tar_with_a_damaged_header_is_not_taken_for_a_shorter_one(tmp_path: Path, cfg: Cfg) -> None:
    tar = bytearray(a_tar({"a.cfg": cfg().encode(), "a.dat": DAT, "b.cfg": cfg().encode(), "b.dat": DAT}, "w"))
    at = tar.index(b"b.cfg")
    tar[at] ^= 0xFF
    with pytest.raises(BadArchive, match=f"at byte {at} there is neither a member nor the end's mark"):
        pack(received(tmp_path, {"a.tar": bytes(tar)}), tmp_path, LIMITS)


def test_a_tar_that_would_fill_the_memory_by_its_headers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="has a header of 5000000 bytes"):
        pack(received(tmp_path, {"a.tar": a_tar({"a" * 4_999_999: b""})}), tmp_path, LIMITS)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "is empty; send a zip"),
        ({"a.zip": b"not a zip"}, "is no archive, or a damaged one; send a zip"),
        ({"a.cfg": b"North,Relay,1999"}, "is one part of a recording"),
        ({"a.zip": b"", "b.zip": b""}, "a.zip is not part of a recording; .* one archive at a time"),
        ({"a.tar.gz": a_tar({"a.txt": b"hello"})}, "holds no COMTRADE recording"),
        ({"a.tar.gz": a_tar({"a.cfg": b"x"}, link="/etc/passwd")}, "'link.cfg', which is a link or a device"),
        ({"a.tar.gz": a_tar({"../a.cfg": b"x", "../a.dat": b"x"})}, "a member outside of itself"),
        ({"a.tar.gz": a_tar({"a.cfg": b"\0" * (12 << 20)})}, "bytes unpacked, which is more than is taken"),
        ({"a.tar.gz": a_tar({f"{n}.cfg": b"x" for n in range(101)})}, "more than 100 members"),
        ({"a.tar.gz": gzip.compress(a_tar({"a.cfg": b"x"}, "w") + bytes(12 << 20))}, "goes on after its end"),
        ({"a.tar.gz": a_tar({"a.cfg": bytes(range(256)) * 400})[:300]}, "damaged"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_what_would_be(
    tmp_path: Path, files: Mapping[str, bytes], why: str
) -> None:
    with pytest.raises(BadArchive, match=why):
        pack(received(tmp_path, files), tmp_path, LIMITS)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="there is no such file"):
        pack([Received("a.zip", tmp_path / "a.zip")], tmp_path, LIMITS)


@pytest.mark.parametrize("name", ["a" * 70_000, "S\udcfcd"], ids=["too long", "a lone surrogate"])
def test_a_file_name_that_a_zip_cannot_hold_is_refused(tmp_path: Path, cfg: Cfg, name: str) -> None:
    files = received(tmp_path, {f"{name}.cfg": cfg().encode(), f"{name}.dat": DAT})
    with pytest.raises(BadArchive, match="whose name no archive can hold"):
        pack(files, tmp_path, LIMITS)


@pytest.mark.parametrize("year", [1971, 2200])
def test_a_file_with_a_date_that_a_zip_cannot_hold_is_taken(tmp_path: Path, cfg: Cfg, year: int) -> None:
    files = received(tmp_path, {"a.cfg": cfg().encode(), "a.dat": DAT})
    for file in files:
        os.utime(file.path, (0, (year - 1970) * 31_556_952))

    packed = pack(files, tmp_path, LIMITS)

    assert packed.data_sets == ("/a.cfg",)


def test_the_packed_zip_holds_names_without_folders(tmp_path: Path, cfg: Cfg) -> None:
    files = received(tmp_path, {"C:/x/a.cfg": cfg().encode(), "y/a.dat": DAT})
    with zipfile.ZipFile(pack(files, tmp_path, LIMITS).path) as archive:
        assert archive.namelist() == ["a.cfg", "a.dat"]
