"""Requirements of handlers: installed once per lock (a runtime's packages and what is required), kept, lent to runs.

A lock is a folder named by its digest. Its files are read-only to runs by their mount; the cache is this host's, and several
executors may share it: a lock is made beside its place and moved there whole, and is held by flock(2) while a run uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from executor.index import Index
from executor.sandbox.environment import CA_BUNDLE
from executor.sandbox.index import ENDPOINT
from executor.sandbox.job import (
    MIB,
    Access,
    BtrdbAway,
    Ended,
    Install,
    Job,
    Limits,
    RequirementsRefused,
    Runtime,
    SandboxLost,
    SandboxUnavailable,
)
from executor.sandbox.runtime import SandboxedRuntime
from schemas.errors import TryLater
from schemas.records import Outcome

log = structlog.get_logger()

USED = ".used"
LEFT_S = 3600.0
"""Older than any install can be."""


class IndexAway(TryLater):
    """The package index cannot be reached now."""


@dataclass(frozen=True)
class Bounds:
    """keep_bytes: of all locks together; one_bytes: of one, unpacked; wall_s: of one install; memory_bytes: for its sandbox.

    remember_s: so long a refusal is answered without asking the index again.
    """

    keep_bytes: int
    one_bytes: int
    wall_s: float
    memory_bytes: int
    remember_s: float = 60.0


@dataclass
class _Making:
    """A lock that is being made: others who need it wait for done."""

    done: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None


def normalized(requirements: Sequence[str]) -> tuple[str, ...]:
    """Sorted, each once, spelled in one way (PEP 503, PEP 508). Raises RequirementsRefused for what is none, or has an address."""
    found = set()
    for text in requirements:
        try:
            one = Requirement(text)
        except InvalidRequirement as error:
            raise RequirementsRefused(f"{text[:100]!r} is no requirement: {error}") from error
        if one.url is not None:
            raise RequirementsRefused(f"{text[:100]!r} names an address; packages come from the operator's index alone")
        one.name = canonicalize_name(one.name)
        found.add(str(one))
    return tuple(sorted(found))


class Packages:
    """The cache of one executor. Many threads may ask at once; the same lock is made once."""

    def __init__(self, folder: Path, runtimes: Mapping[str, Path], index: Index, bounds: Bounds) -> None:
        """folder: made when it is not there; runtimes: name -> interpreter. Raises ValueError for a folder that others may write."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        _own(folder)
        self.folder = folder
        self._runtimes = runtimes
        self._index = index
        self._bounds = bounds
        self._lock = threading.Lock()
        self._making: dict[str, _Making] = {}
        self._refused: dict[str, tuple[float, str]] = {}

    @contextlib.contextmanager
    def lent(self, runtime: str, requirements: Sequence[str]) -> Iterator[str]:
        """The name of the lock's folder, which stays there until the end of the with; blocks for an install at most.

        Raises RequirementsRefused, IndexAway, SandboxLost.
        """
        wanted = normalized(requirements)
        name = self._digest(runtime, wanted)
        while (held := self._hold(name)) < 0:
            self._make(name, runtime, wanted)
        try:
            with contextlib.suppress(OSError):
                os.utime(self.folder / name / USED)
            yield name
        finally:
            os.close(held)

    def _digest(self, runtime: str, requirements: Sequence[str]) -> str:
        python = self._runtimes[runtime]
        # what is installed in a runtime changes with its site-packages folder
        sites = sorted(python.parent.parent.glob("lib/python3*/site-packages"))
        changed = [site.stat().st_mtime_ns for site in sites]
        whole = json.dumps([runtime, str(python), changed, self._index.name, list(requirements)])
        return hashlib.sha256(whole.encode()).hexdigest()

    def _hold(self, name: str) -> int:
        """A descriptor that keeps the lock's folder from being removed; -1 when there is none."""
        try:
            descriptor = os.open(self.folder / name / USED, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # it was removed meanwhile
        return -1

    def _make(self, name: str, runtime: str, requirements: Sequence[str]) -> None:
        """Makes the lock, or waits for the thread that does."""
        with self._lock:
            until, why = self._refused.get(name, (0.0, ""))
            if until > time.monotonic():
                raise RequirementsRefused(why)
            making = self._making.get(name)
            mine = making is None
            if making is None:
                making = self._making[name] = _Making()
        if not mine:
            making.done.wait()
            if making.failure is not None:
                raise making.failure
            return
        try:
            self._install(name, runtime, requirements)
            self._sweep(name)
        except Exception as error:
            making.failure = error
            if isinstance(error, RequirementsRefused):
                with self._lock:
                    self._refused[name] = (time.monotonic() + self._bounds.remember_s, str(error))
                    self._refused = {k: v for k, v in self._refused.items() if v[0] > time.monotonic()}
            raise
        finally:
            with self._lock:
                del self._making[name]
            making.done.set()

    def _install(self, name: str, runtime: str, requirements: Sequence[str]) -> None:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as scratch:
            packed = self._run_pip(runtime, requirements, Path(scratch))
            made = Path(scratch) / "made"
            _unpack(packed, made)
            (made / USED).touch()
            with contextlib.suppress(OSError):  # another executor on this host was quicker
                made.rename(self.folder / name)
        log.info("requirements installed", runtime=runtime, lock=name[:12], seconds=round(time.monotonic() - began, 1))

    def _run_pip(self, runtime: str, requirements: Sequence[str], spool: Path) -> Path:
        """pip in a sandbox whose only way out is the index; the tar file that it made."""
        index, bounds = self._index, self._bounds
        access = Access(ENDPOINT, index.ca_bundle, index=index.hosts)
        sandbox = SandboxedRuntime(Runtime(runtime, self._runtimes[runtime]), access, warm=0, spool=spool)
        job = Job(
            run_id=str(uuid.uuid4()),
            blob=b"",
            arguments={},
            documented=(),
            api_key=uuid.uuid4().hex,
            limits=Limits(
                wall_s=bounds.wall_s,
                warning_s=0.0,
                memory_bytes=bounds.memory_bytes,
                scratch_bytes=2 * bounds.one_bytes + 16 * MIB,
                upload_bytes=bounds.one_bytes,
            ),
            handler="pip",
            install=Install(tuple(requirements), index.environment(f"http://{ENDPOINT}", CA_BUNDLE)),
        )
        try:
            sandbox.start()
            ended = sandbox.run(job)
        except SandboxUnavailable as error:
            raise RequirementsRefused(f"this executor cannot install requirements: {error}") from error
        except BtrdbAway as error:
            raise SandboxLost(str(error)) from error
        finally:
            sandbox.close()
        return _told(ended, sandbox.index_away(), bounds)

    def _sweep(self, kept: str) -> None:
        """Removes the locks that were used the longest ago, until the rest fits; none that a run uses."""
        locks = []
        for path in self.folder.iterdir():
            if not path.name.startswith("."):
                with contextlib.suppress(OSError):
                    locks.append(((path / USED).stat().st_mtime, _size(path), path))
        total = sum(size for _, size, _ in locks)
        for _, size, path in sorted(locks):
            if total <= self._bounds.keep_bytes:
                return
            if path.name != kept and _remove(path):
                total -= size


def _own(folder: Path) -> None:
    """Whoever can write there gives handlers their code. Removes what a killed process left half made."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise ValueError(
            f"EXECUTOR_PACKAGES_DIR: {folder} should be a folder that this user owns and nobody else may write"
        )
    for left in folder.glob(".new-*"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < time.time() - LEFT_S:
                shutil.rmtree(left)


def _told(ended: Ended, away: str, bounds: Bounds) -> Path:
    """The tar file of an install that went well. Raises IndexAway, RequirementsRefused."""
    if ended.outcome is Outcome.SUCCEEDED and ended.uploads and ended.uploads[0].path is not None:
        return ended.uploads[0].path
    if away or (ended.error is not None and ended.error.type == "IndexAway"):
        raise IndexAway(f"the package index is away: {away or 'it does not answer as it should'}", 30.0)
    mib = bounds.one_bytes // MIB
    if ended.outcome is Outcome.FAILED and ended.error is not None and "No space left" not in ended.error.message:
        raise RequirementsRefused(f"the requirements cannot be installed: {ended.error.message}")
    if ended.outcome is Outcome.TIMED_OUT:
        raise RequirementsRefused(f"the requirements were not installed within {bounds.wall_s:g} s")
    raise RequirementsRefused(f"the requirements take more than the {mib} MiB that they may")


def _unpack(packed: Path, into: Path) -> None:
    """Plain files and folders alone, each beneath the folder; the tar file comes out of a sandbox. Raises RequirementsRefused."""
    into.mkdir()
    try:
        with tarfile.open(packed, "r:") as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()):
                    raise RequirementsRefused(f"a package has {member.name[:100]!r}, which is neither file nor folder")
                tar.extract(member, into, filter="data")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise RequirementsRefused(f"what was installed cannot be kept: {error}") from error
    packed.unlink()
    for folder, _, files in os.walk(into):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _size(path: Path) -> int:
    return sum(os.lstat(Path(folder, name)).st_size for folder, _, files in os.walk(path) for name in files)


def _remove(path: Path) -> bool:
    """Unless a run holds it."""
    try:
        descriptor = os.open(path / USED, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (path / USED).unlink()
        shutil.rmtree(path, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    log.info("requirements removed", lock=path.name[:12])
    return True
