"""Whatever way recordings come in (zip, zic, tar, a bare CFF, a CFG with its DAT) -> one zip, checked."""

from __future__ import annotations

import posixpath
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from ctingress.decode_text import readable_names
from ctingress.open import DAMAGE, Limits, open_archive
from ctingress.read_cff import is_cff
from ctingress.refuse import BadArchive

PARTS = (".cfg", ".dat", ".hdr", ".inf")
TAKEN = "a zip (.zip, .zic), a tar (.tar, .tar.gz, .tar.xz, .tar.bz2), a CFF file, or a CFG file with its DAT file"
_CHUNK = 1 << 20
_SMALL = 10 * _CHUNK
_FIRST_LINE = 1024
_IN_MEMORY = {
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
}  # fmt: skip
"""Headers whose content tarfile reads whole: a long name, pax's records."""


@dataclass(frozen=True)
class Received:
    """A file as it came: the name that its sender gave it, '' for none, and where it lies now."""

    name: str
    path: Path


@dataclass(frozen=True)
class Packed:
    """A zip that has been checked. name: for people; data_sets: the names of its data sets."""

    name: str
    path: Path
    data_sets: tuple[str, ...]


def pack(files: Sequence[Received], folder: Path, limits: Limits) -> Packed:
    """One checked zip of what came, in folder when it has to be made. Blocks.

    Raises BadArchive saying what would be taken, OSError when a file cannot be read or the folder is full.
    """
    if not files:
        raise BadArchive(f"is empty; send {TAKEN}")
    for file in files:
        if not file.path.is_file():
            raise BadArchive(f"{file.name}: there is no such file" if len(files) > 1 else "there is no such file")
    if len(files) > 1:
        return _checked(_title(files), _zipped(files, folder / "packed.zip"), limits)
    only = files[0]
    suffix = PurePosixPath(only.name).suffix.lower()
    if zipfile.is_zipfile(only.path):
        return _checked(only.name or "archive.zip", only.path, limits)
    if suffix == ".cff" or _is_cff(only.path):
        cff = Received((PurePosixPath(only.name).stem or "archive") + ".cff", only.path)
        return _checked(only.name or cff.name, _zipped([cff], folder / "packed.zip"), limits)
    if suffix in PARTS:
        raise BadArchive(f"is one part of a recording; send {TAKEN}")
    if _is_tar(only.path):
        return _checked(only.name or "archive.tar", _from_tar(only.path, folder / "packed.zip", limits), limits)
    raise BadArchive(f"is no archive, or a damaged one; send {TAKEN}")


def _checked(name: str, path: Path, limits: Limits) -> Packed:
    with open_archive(path, limits) as archive:
        return Packed(name, path, tuple(data_set.name for data_set in archive.data_sets()))


def _title(files: Sequence[Received]) -> str:
    """The name of a recording that comes in parts: its CFG file's."""
    for file in files:
        if PurePosixPath(file.name).suffix.lower() not in (*PARTS, ".cff"):
            raise BadArchive(
                f"{file.name or 'a file without a name'} is not part of a recording; send {TAKEN}, one archive at a time"
            )
    return next((file.name for file in files if file.name.lower().endswith((".cfg", ".cff"))), files[0].name)


def _zipped(files: Sequence[Received], into: Path) -> Path:
    # files of before 1980 or after 2107 get the nearest date that a zip can hold
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for file in files:
            try:
                archive.write(file.path, PurePosixPath(file.name).name)
            except (ValueError, struct.error) as error:
                raise BadArchive(f"has a file whose name no archive can hold ({file.name[:40]!r}): {error}") from error
    return into


def _is_cff(path: Path) -> bool:
    with path.open("rb") as content:
        return is_cff(content.read(_FIRST_LINE))


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, tarinfo=_Header).close()
    except (tarfile.TarError, *DAMAGE) as error:
        if isinstance(error, BadArchive) or _of_this_machine(error):
            raise
        return False
    return True


class _Header(tarfile.TarInfo):
    """A member's header, unless it would fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _IN_MEMORY and header.size > _CHUNK:
            raise BadArchive(f"has a header of {header.size} bytes, which is more than is taken")
        return header


def _of_this_machine(error: BaseException) -> bool:
    """Whether a disk or a right is the matter and not what the file holds: libraries that find damage set no errno."""
    return isinstance(error, OSError) and error.errno is not None


def _from_tar(path: Path, into: Path, limits: Limits) -> Path:
    """Member by member, never to disk under a name of the archive's choosing; stops at the limits."""
    most = min(limits.bytes, max(_SMALL, int(limits.ratio * path.stat().st_size)))
    total = 0
    try:
        with (
            tarfile.open(path, tarinfo=_Header) as source,
            zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for count, member in enumerate(source, 1):
                if count > limits.files:
                    raise BadArchive(f"has more than {limits.files} members; no more are taken")
                if member.isdir():
                    continue
                content = source.extractfile(member) if member.isreg() else None
                if content is None:
                    raise BadArchive(f"has {member.name!r}, which is a link or a device; there should be files only")
                total += member.size
                if total > most:
                    raise BadArchive(f"would have more than {most} bytes unpacked, which is more than is taken")
                # the ending apart from the rest: the parts of a recording keep one name, whatever alphabet it is found to be in
                name = "".join(readable_names(posixpath.splitext(member.name)))
                with archive.open(name, "w", force_zip64=True) as out:
                    shutil.copyfileobj(content, out, _CHUNK)
            _read_on(source, most)
    except (tarfile.TarError, OverflowError, *DAMAGE) as error:
        if isinstance(error, BadArchive) or _of_this_machine(error):
            raise
        raise BadArchive(f"is a damaged tar archive: {error}") from error
    return into


def _read_on(source: tarfile.TarFile, most: int) -> None:
    """To the end of the file: only there what it is compressed with compares its check sum.

    tarfile takes anything that is no header for the end; what is one begins with a block of zeros (POSIX, pax, "ustar format").
    """
    stream = source.fileobj
    assert stream is not None
    stream.seek(source.offset)
    mark = stream.read(tarfile.BLOCKSIZE)
    if not mark or mark.strip(b"\0"):
        raise BadArchive(
            f"is a damaged tar archive: at byte {source.offset} there is neither a member nor the end's mark"
        )
    while chunk := stream.read(_CHUNK):
        most -= len(chunk)
        if most < 0:
            raise BadArchive("goes on after its end for more bytes than are taken")
