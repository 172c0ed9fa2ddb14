"""python -m ctingress watch DIR: each finished file is ingested once, then moved to done/ or failed/."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import structlog
from btrdb.exceptions import BTrDBError

from ctingress.decode_text import readable_names
from ctingress.describe import Unreadable
from ctingress.ingest import Ingested, Options
from ctingress.open import Limits
from ctingress.pack import PARTS, Received, pack
from ctingress.refuse import BadArchive
from ctingress.write import NotWritten, key_refused
from schemas.errors import InvalidMessage, TryLater

log = structlog.get_logger()

ARCHIVES = (".zip", ".zic", ".tar", ".tgz", ".gz", ".txz", ".xz", ".tbz", ".tbz2", ".bz2", ".cff")
MAY_BE_EMPTY = (".hdr", ".inf")
DONE, FAILED = "done", "failed"
UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".crdownload")
_NAMES = uuid.UUID("0c9a4c0e-7a0b-5d6e-9c57-7d0a3f1f5b11")

Ingest = Callable[[Path, Options], Ingested]


@dataclass(frozen=True)
class Drop:
    """What is ingested together: an archive, or the parts of one recording."""

    files: tuple[Path, ...]

    def received(self) -> list[Received]:
        """The files under names that are text."""
        names = readable_names([file.name for file in self.files])
        return [Received(name, file) for name, file in zip(names, self.files, strict=True)]

    def marks(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and mtime (ns) of each: while they change, somebody is still writing."""
        return tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self.files)

    def empty(self) -> bool:
        """Whether a file that has to hold something holds nothing yet."""
        return any(size == 0 and not name.lower().endswith(MAY_BE_EMPTY) for name, size, _ in self.marks())


class Watch:
    """One folder and what is below it. A file counts as finished when it has not changed for settle_s."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        ingest: Ingest,
        limits: Limits,
        *,
        settle_s: float = 10.0,
        lonely_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """ingest: ctingress.ingest's, over connections that stand.

        lonely_s: how long a CFG or DAT file waits for the other, and a file that is empty for what it should hold.

        Raises OSError when the folder cannot be worked in.
        """
        self._folder = folder
        self._options = options
        self._ingest = ingest
        self._limits = limits
        self._settle_s = settle_s
        self._lonely_s = lonely_s
        self._clock = clock
        self._seen: dict[tuple[Path, ...], tuple[object, float]] = {}
        self._told: dict[tuple[Path, ...], str] = {}
        self._over: dict[tuple[Path, ...], tuple[object, str, str]] = {}
        """Those that have been dealt with and could not be moved: their marks, where to, and why."""
        for where in (DONE, FAILED):
            (folder / where).mkdir(exist_ok=True)

    def turn(self) -> int:
        """Looks once; ingests what is finished; returns how many were moved. Blocks.

        Raises TryLater, after all have had their turn, when BTrDB or Kafka were away; such a file stays, and the next turn
        tries it again under the same RequestID, so nothing is doubled. So does a file that cannot be read or moved.
        """
        moved = 0
        away: TryLater | None = None
        drops = list(self._drops())
        self._seen = {files: seen for files, seen in self._seen.items() if files in {drop.files for drop in drops}}
        for drop in drops:
            try:
                moved += self._look_at(drop)
            except TryLater as error:
                away = error
            except OSError as error:
                self._leave(drop, error)
        if away is not None:
            raise away
        return moved

    def _look_at(self, drop: Drop) -> bool:
        """Whether it was moved."""
        rested = self._rested(drop)
        alone = drop.files[0].suffix.lower() in PARTS and not _whole(drop)
        if alone or drop.empty():
            if rested <= self._lonely_s:
                return False
            missing = "a CFG file and its DAT file belong together; the other never came"
            self._move(drop, FAILED, missing if alone else "is empty, and nothing more came")
            return True
        if rested < self._settle_s:
            return False
        marks, where, why = self._over.pop(drop.files, (None, "", ""))
        if marks == drop.marks():
            self._move(drop, where, why)
        else:
            self._take(drop)
        return True

    def _rested(self, drop: Drop) -> float:
        """For how long, by our own clock, it has not changed."""
        marks = drop.marks()
        known = self._seen.get(drop.files)
        if known is None or known[0] != marks:
            self._seen[drop.files] = (marks, self._clock())
            return 0.0
        return self._clock() - known[1]

    def _take(self, drop: Drop) -> None:
        request_id = str(_request_id(drop))
        options = replace(self._options, request_id=request_id, file_name=_title(drop))
        try:
            with tempfile.TemporaryDirectory(prefix="ctingress-") as folder:
                packed = pack(drop.received(), Path(folder), self._limits)
                done = self._ingest(packed.path, options)
        except (BadArchive, InvalidMessage) as error:
            self._move(drop, FAILED, f"{_title(drop)}: {getattr(error, 'reason', error)}")
            return
        except NotWritten as error:
            if not error.for_good:
                raise TryLater(str(error), after_s=self._settle_s) from error
            self._move(drop, FAILED, str(error))
            return
        except (BTrDBError, grpc.RpcError) as error:
            self._move(drop, FAILED, f"BTrDB refuses the key (BTRDB_API_KEY): {key_refused(error)}")
            return
        unread = {d.name: d.error for d in done.data_sets if isinstance(d, Unreadable)}
        if unread and len(unread) == len(done.data_sets):
            told = "\n".join(f"{name}: {error}" for name, error in unread.items())
            self._move(drop, FAILED, f"nothing in it could be read, which event {request_id} says:\n{told}")
            return
        self._move(drop, DONE, "")
        read = len(done.data_sets) - len(unread)
        log.info("ingested", file=_title(drop), request_id=request_id, data_sets=read, not_read=unread)

    def _leave(self, drop: Drop, error: OSError) -> None:
        """It stays where it is, and is tried again when it has rested anew."""
        self._seen.pop(drop.files, None)
        if isinstance(error, FileNotFoundError) and not all(os.path.lexists(file) for file in drop.files):
            return  # somebody has taken it away
        self._tell(drop.files, "left for now, and tried again later", str(error))

    def _tell(self, files: tuple[Path, ...], what: str, reason: str) -> None:
        """Once, not at each turn."""
        if self._told.get(files) != reason:
            self._told[files] = reason
            log.warning(what, file=readable_names([str(files[0])])[0], reason=reason)

    def _drops(self) -> Iterator[Drop]:
        """Archives by themselves, parts of a recording by folder and stem, whatever the case."""
        parts: dict[tuple[Path, str], list[Path]] = {}
        for path in sorted(self._folder.rglob("*")):
            within = path.relative_to(self._folder).parts
            if within[0] in (DONE, FAILED) or any(name.startswith(".") for name in within) or not self._is_file(path):
                continue
            kind = path.suffix.lower()
            if kind in PARTS:
                parts.setdefault((path.parent, path.stem.lower()), []).append(path)
            elif kind in ARCHIVES:
                yield Drop((path,))
            elif kind not in UNFINISHED:
                self._tell((path,), "left alone", "not a COMTRADE file or archive by its name")
        for files in parts.values():
            yield Drop(tuple(files))

    def _is_file(self, path: Path) -> bool:
        try:
            return path.is_file()
        except OSError as error:  # in a folder that we may list and not enter
            self._tell((path,), "left for now, and tried again later", str(error))
            return False

    def _move(self, drop: Drop, where: str, why: str) -> None:
        """All of its files or, with an OSError, none; then it is moved at another turn, and not ingested again."""
        marks, moved = drop.marks(), list[tuple[Path, Path]]()
        try:
            for file in drop.files:
                target = _free(self._folder / where / file.relative_to(self._folder))
                target.parent.mkdir(parents=True, exist_ok=True)
                _move_file(file, target)
                moved.append((file, target))
        except OSError:
            self._over[drop.files] = (marks, where, why)
            for file, target in moved:
                _move_file(target, file)
            raise
        for _, target in moved if why else ():
            beside = target.with_name(target.name + ".error.txt")
            beside.write_text(why + "\n", "utf-8", "backslashreplace")
        if why:
            log.error("failed", file=_title(drop), reason=why)


def _whole(drop: Drop) -> bool:
    return {".cfg", ".dat"} <= {file.suffix.lower() for file in drop.files}


def _title(drop: Drop) -> str:
    """Its name for people."""
    names = [file.name for file in drop.received()]
    return next((name for name in names if name.lower().endswith(".cfg")), names[0])


def _request_id(drop: Drop) -> uuid.UUID:
    """The same for the same content, name and time of writing: after a crash the event is the one that was published before."""
    digest = hashlib.sha256()
    for name, _, mtime_ns in drop.marks():
        digest.update(os.fsencode(name) + f"\0{mtime_ns}\0".encode())
    for file in drop.files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return uuid.uuid5(_NAMES, digest.hexdigest())


def _move_file(file: Path, to: Path) -> None:
    try:
        file.rename(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copy2(file, to)
        try:
            file.unlink()
        except OSError:
            to.unlink()
            raise


def _free(path: Path) -> Path:
    number = 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def watch(turn: Callable[[], int], pause: Callable[[float], bool], every_s: float) -> None:
    """Turns until pause(seconds) says that it is time to stop; what is away is waited for."""
    wait_s = every_s
    while not pause(wait_s):
        try:
            turn()
            wait_s = every_s
        except TryLater as error:
            wait_s = min(max(wait_s * 2, error.after_s), 300.0)
            log.warning("trying again later", reason=error.reason, wait_s=wait_s)
