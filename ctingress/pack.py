"""Whatever way recordings come in (zip, zic, tar, a bare CFF, a CFG with its DAT) -> one zip, checked."""

from __future__ import annotations

import shutil
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctingress.open import Limits, open_archive
from ctingress.refuse import BadArchive

PARTS = (".cfg", ".dat", ".hdr", ".inf")
TAKEN = "a zip (.zip, .zic), a tar (.tar, .tar.gz), a CFF file, or a CFG file with its DAT file"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Received:
    """A file as it came: the name that its sender gave it, and where it lies now."""

    name: str
    path: Path


@dataclass(frozen=True)
class Packed:
    """A zip that has been checked. name: for people; data_sets: the names of its data sets."""

    name: str
    path: Path
    data_sets: tuple[str, ...]


def pack(files: Sequence[Received], folder: Path, limits: Limits) -> Packed:
    """One checked zip of what came, in folder when it has to be made. Blocks; raises BadArchive saying what would be taken."""
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
        return _checked(only.name, only.path, limits)
    if suffix == ".cff":
        return _checked(only.name, _zipped(files, folder / "packed.zip"), limits)
    if suffix in PARTS:
        raise BadArchive(f"is one part of a recording; send {TAKEN}")
    if _is_tar(only.path):
        return _checked(only.name, _from_tar(only.path, folder / "packed.zip", limits), limits)
    raise BadArchive(f"is no archive, or a damaged one; send {TAKEN}")


def _checked(name: str, path: Path, limits: Limits) -> Packed:
    with open_archive(path, limits) as archive:
        return Packed(name, path, tuple(data_set.name for data_set in archive.data_sets()))


def _title(files: Sequence[Received]) -> str:
    """The name of a recording that comes in parts: its CFG file's."""
    for file in files:
        if PurePosixPath(file.name).suffix.lower() not in (*PARTS, ".cff"):
            raise BadArchive(f"{file.name} is not part of a recording; send {TAKEN}, one archive at a time")
    return next((file.name for file in files if file.name.lower().endswith((".cfg", ".cff"))), files[0].name)


def _zipped(files: Sequence[Received], into: Path) -> Path:
    # files of before 1980 or after 2107 get the nearest date that a zip can hold
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for file in files:
            archive.write(file.path, PurePosixPath(file.name).name)
    return into


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError):
        return False


def _from_tar(path: Path, into: Path, limits: Limits) -> Path:
    """Member by member, never to disk under a name of the archive's choosing; stops at the limits."""
    count = total = 0
    try:
        with tarfile.open(path) as source, zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for member in source:
                if member.isdir():
                    continue
                content = source.extractfile(member) if member.isreg() else None
                if content is None:
                    raise BadArchive(f"has {member.name!r}, which is a link or a device; there should be files only")
                count, total = count + 1, total + member.size
                if count > limits.files:
                    raise BadArchive(f"has more than {limits.files} members; no more are taken")
                if total > limits.bytes or (total > 10 * _CHUNK and total > limits.ratio * path.stat().st_size):
                    raise BadArchive(f"would have more than {total} bytes unpacked, which is more than is taken")
                with archive.open(member.name, "w", force_zip64=True) as out:
                    shutil.copyfileobj(content, out, _CHUNK)
    except (tarfile.TarError, EOFError, OSError, ValueError, struct.error) as error:
        if isinstance(error, BadArchive):
            raise
        raise BadArchive(f"is a damaged tar archive: {error}") from error
    return into
