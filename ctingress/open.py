"""An archive -> its data sets: CFG+DAT pairs and CFF files, wherever they lie in it. Nothing is ever unpacked to disk."""

from __future__ import annotations

import lzma
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ctingress.decode_text import decode_names, decode_text
from ctingress.read_cff import read_cff
from ctingress.read_cfg import read_cfg
from ctingress.read_dat import read_dat
from ctingress.recording import Config, Samples
from ctingress.refuse import BadArchive, BadRecording

MIB = 1 << 20
TEXT_LIMIT = 64 * 1024
"""Characters of a header or information file that go into the event."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_ENCRYPTED, _UTF8 = 0x1, 0x800
_SMALL = 10 * MIB
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, OSError, ValueError)
"""What zipfile raises, and what it lets through from the libraries beneath it (NotImplementedError is a RuntimeError)."""


@dataclass(frozen=True)
class Limits:
    """files: members of an archive; bytes: all of them unpacked; ratio: unpacked to packed (above 10 MiB unpacked)."""

    files: int = 5_000
    bytes: int = 4 << 30
    ratio: float = 200.0


@dataclass(frozen=True)
class DataSet:
    """One recording in an archive. name: its config file's path with a leading /."""

    name: str
    _archive: Archive
    _parts: Mapping[str, zipfile.ZipInfo]

    def read(self) -> tuple[Config, Samples, str | None, str | None]:
        """Config, samples, header and information text. Blocks; raises BadRecording saying what is wrong where."""
        if "cff" in self._parts:
            sections = read_cff(self._archive.content(self._parts["cff"]))
            config, dat_line = _config(sections.cfg, sections.cfg_line), sections.dat_line
            if sections.encoding not in ("", config.encoding):
                raise BadRecording(
                    f"the DAT section says {sections.encoding}, the CFG section {config.encoding}: which one is not clear"
                )
            dat, hdr, inf = sections.dat, sections.hdr, sections.inf
        else:
            if "cfg" not in self._parts:
                raise BadRecording("there is no CFG file beside this DAT file")
            if "dat" not in self._parts:
                raise BadRecording("there is no DAT file beside this CFG file")
            cfg = self._archive.content(self._parts["cfg"])
            if cfg.startswith(_APPLE_DOUBLE):
                raise BadRecording("is no CFG file but macOS's own note on one (AppleDouble)")
            config, dat_line = _config(decode_text(cfg), 1), 1
            dat, hdr, inf = self._archive.content(self._parts["dat"]), self._text("hdr"), self._text("inf")
        if not dat.strip(b"\r\n\x1a \x00"):
            raise BadRecording("the DAT file holds no sample")
        samples = read_dat(dat, config, dat_line)
        return config, samples, hdr and hdr[:TEXT_LIMIT], inf and inf[:TEXT_LIMIT]

    def _text(self, kind: str) -> str | None:
        if kind not in self._parts:
            return None
        return decode_text(self._archive.content(self._parts[kind])) or None


def _config(text: str, first_line: int) -> Config:
    try:
        return read_cfg(text, first_line)
    except BadRecording as error:
        raise BadRecording(f"CFG {error}") from error


class Archive:
    """An open archive; name: its file's name."""

    def __init__(self, name: str, file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self.name = name
        self._file = file
        self._sets = [DataSet(known, self, parts) for known, parts in _pair(members)]
        if not self._sets:
            raise BadArchive(f"holds no COMTRADE recording: no .cfg or .cff among its {len(members)} files")

    def data_sets(self) -> Iterator[DataSet]:
        """The recordings in the archive's order."""
        return iter(self._sets)

    def content(self, member: zipfile.ZipInfo) -> bytes:
        """A member's bytes; raises BadRecording when the archive is damaged there."""
        try:
            return self._file.read(member)
        except DAMAGE as error:
            raise BadRecording(f"{posixpath.basename(member.filename)} cannot be unpacked: {error}") from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def open_archive(path: Path, limits: Limits | None = None) -> Archive:
    """Opens an archive and finds its data sets. Raises BadArchive: no zip, encrypted, a path out of it, a bomb, empty."""
    limits = limits or Limits()
    try:
        file = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise BadArchive("there is no such file") from None
    except DAMAGE as error:
        raise BadArchive(f"is no zip archive, or a damaged one: {error}") from error
    try:
        return Archive(path.name, file, _members(file, limits, path.stat().st_size))
    except BaseException:
        file.close()
        raise


def _members(file: zipfile.ZipFile, limits: Limits, packed: int) -> dict[str, zipfile.ZipInfo]:
    entries = file.infolist()
    if len(entries) > limits.files:
        raise BadArchive(f"has {len(entries)} members; at most {limits.files} are taken")
    members: dict[str, zipfile.ZipInfo] = {}
    for name, entry in zip(_names(entries), entries, strict=True):
        if name.endswith("/"):
            continue
        _check_path(name)
        name = "/".join(part for part in name.split("/") if part not in ("", "."))  # tar -C folder . writes ./a.cfg
        if entry.flag_bits & _ENCRYPTED:
            raise BadArchive(f"is encrypted ({name}); it should be without a password")
        if name in members:
            raise BadArchive(f"has two members called {name!r}; which one counts is not clear")
        members[name] = entry
    if not members:
        raise BadArchive("is empty")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.bytes:
        raise BadArchive(f"would have {unpacked} bytes unpacked; at most {limits.bytes} are taken")
    if unpacked > _SMALL and unpacked > limits.ratio * packed:
        raise BadArchive(
            f"would have {unpacked} bytes unpacked, {unpacked / packed:.0f} times its size; at most {limits.ratio:.0f} times is taken"
        )
    return members


def _names(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The members' names, folders ended by /; old packers write their own code page and do not say so, some write \\ for /."""
    names = [entry.filename for entry in entries]
    untold = {index: raw for index, entry in enumerate(entries) if (raw := _raw_name(entry)) is not None}
    for index, name in zip(untold, decode_names(list(untold.values())), strict=True):
        names[index] = name
    return [name if "/" in name else name.replace("\\", "/") for name in names]


def _raw_name(entry: zipfile.ZipInfo) -> bytes | None:
    """A name's bytes where the archive does not say what they mean: zipfile has read them as cp437 then."""
    if entry.flag_bits & _UTF8 or entry.filename.isascii():
        return None
    try:
        return entry.filename.encode("cp437")
    except UnicodeEncodeError:  # from Info-ZIP's extra field for Unicode
        return None


def _check_path(name: str) -> None:
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise BadArchive(f"has a member outside of itself ({name!r}); paths should be relative, without ..")


def _pair(members: Mapping[str, zipfile.ZipInfo]) -> Iterator[tuple[str, dict[str, zipfile.ZipInfo]]]:
    """(name, parts by kind) of each data set, in the archive's order."""
    kinds = ("cfg", "cff", "dat", "hdr", "inf")
    found: dict[str, dict[str, tuple[str, zipfile.ZipInfo]]] = {}
    for name, entry in members.items():
        stem, extension = posixpath.splitext(name)
        kind = extension[1:].lower()
        if kind in kinds:
            # a.cfg and a.CFG: one of them has no partner, and is told
            found.setdefault(name if kind in found.get(stem, {}) else stem, {})[kind] = (name, entry)
    stems: dict[str, list[str]] = {}
    for stem in found:
        stems.setdefault(stem.lower(), []).append(stem)
    if not any("cfg" in parts or "cff" in parts for parts in found.values()):
        return
    for stem, parts in found.items():
        others = [found[other] for other in stems[stem.lower()] if other != stem]
        if "cff" in parts:
            yield "/" + parts["cff"][0], {"cff": parts["cff"][1]}
        if "cfg" in parts:
            whole = {kind: entry for other in others for kind, (_, entry) in other.items()}
            whole |= {kind: entry for kind, (_, entry) in parts.items()}
            yield "/" + parts["cfg"][0], {kind: whole[kind] for kind in whole if kind != "cff"}
        elif "dat" in parts and "cff" not in parts and not any("cfg" in other for other in others):
            yield "/" + parts["dat"][0], {"dat": parts["dat"][1]}
