"""The kernel's own limit on a run's memory: a control group for each, where this process may make one; version 2 or 1.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

PREFIX = "eventproc-"
OWN = "eventproc.executor"
SPARE_BYTES = 16 * 1024 * 1024
"""Beyond a run's limit: the kernel's own memory, and room for the watch to tell first what was held."""


class NoCgroups(Exception):
    """No group can be made here; the text says why."""


@dataclass(frozen=True)
class Place:
    """The group that this process is in, as a folder; version: 1 or 2."""

    path: Path
    version: int


def find(root: Path = Path("/")) -> Place:
    """Where this process's memory is counted. root: where /proc and /sys are found. Raises NoCgroups."""
    own = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    mounts = [line.split() for line in (root / "proc/self/mountinfo").read_text().splitlines()]
    for kind, version in (("cgroup", 1), ("cgroup2", 2)):
        for number, controllers, path in own:
            if "memory" not in controllers.split(",") if version == 1 else (number, controllers) != ("0", ""):
                continue
            for fields in mounts:
                if fields[fields.index("-") + 1] != kind or (version == 1 and "memory" not in fields[-1].split(",")):
                    continue
                # a container sees its own group as the mount's root
                beneath = path[len(fields[3].rstrip("/")) :] if path.startswith(fields[3].rstrip("/") + "/") else ""
                folder = root / fields[4].lstrip("/") / beneath.lstrip("/")
                if folder.name == OWN:  # where _delegate has put us
                    folder = folder.parent
                place = Place(folder, version)
                if version == 1 or "memory" in _read(place.path / "cgroup.controllers").split():
                    return place
    raise NoCgroups("no control group with the memory controller is mounted")


class Group:
    """One run's group at a time; used again for others, for the kernel lets go of a group only when its last page goes."""

    def __init__(self, path: Path, version: int) -> None:
        self._path = path
        self._version = version
        self._names = _NAMES[version]
        self._used_before = False
        self._kills_before = 0
        self._base = 0

    def add(self, pids: list[int]) -> None:
        """Takes in processes. Raises OSError."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self._path / "cgroup.procs").write_text(str(pid))

    def limit(self, limit_bytes: int) -> None:
        """The kernel kills beyond it from now on; what the group holds already comes on top."""
        self._base = int(_read(self._path / self._names["held"]) or 0)
        self._kills_before = self._kills()
        with contextlib.suppress(OSError):
            if self._version == 1:
                (self._path / self._names["peak"]).write_text("0")
        (self._path / self._names["limit"]).write_text(str(self._base + limit_bytes + SPARE_BYTES))

    def killed(self) -> bool:
        """Whether the kernel has killed one of its processes for want of memory, since limit()."""
        return self._kills() > self._kills_before

    def peak(self) -> int:
        """Bytes held at most since limit(), without what files were read; 0 where it is not known."""
        if self._version == 2 and self._used_before:
            return 0  # it is the highest of all that used the group
        held = int(_read(self._path / self._names["peak"]) or 0)
        stat = dict(line.split() for line in _read(self._path / "memory.stat").splitlines() if len(line.split()) == 2)
        cached = int(stat.get(self._names["cached"], 0)) - int(stat.get(self._names["shared"], 0))
        return max(0, held - self._base - max(0, cached))

    def clear(self) -> None:
        """Makes it ready for another run, when all its processes are dead."""
        self._used_before = True
        (self._path / self._names["limit"]).write_text("max" if self._version == 2 else "-1")

    def _kills(self) -> int:
        for line in _read(self._path / self._names["events"]).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
        return 0


_NAMES = {
    1: {
        "limit": "memory.limit_in_bytes",
        "held": "memory.usage_in_bytes",
        "peak": "memory.max_usage_in_bytes",
        "events": "memory.oom_control",
        "cached": "total_cache",
        "shared": "total_shmem",
    },
    2: {
        "limit": "memory.max",
        "held": "memory.current",
        "peak": "memory.peak",
        "events": "memory.events",
        "cached": "file",
        "shared": "shmem",
    },
}


class Cgroups:
    """The groups of one sandbox's runs, in a folder beneath this process's own group."""

    def __init__(self, place: Place) -> None:
        """Makes and tries a first group. Raises NoCgroups."""
        self._place = place
        self._free: list[Path] = []
        self._groups: dict[Path, Group] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._path = place.path / f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        try:
            _clear(place.path)
            if place.version == 2:
                _delegate(place.path)
            self._path.mkdir()
            if place.version == 2:
                (self._path / "cgroup.subtree_control").write_text("+memory")
            first = self.take()
            first.limit(1 << 30)
            self.give_back(first)
        except OSError as error:
            self.close()
            raise NoCgroups(f"no group can be made in {place.path}: {error}") from error

    def take(self) -> Group:
        """A group without processes and without a limit. Raises OSError."""
        with self._lock:
            if self._free:
                return self._groups[self._free.pop()]
            path = self._path / str(next(self._numbers))
        path.mkdir()
        if self._place.version == 2:
            for name, value in (("memory.oom.group", "1"), ("memory.swap.max", "0")):
                with contextlib.suppress(OSError):
                    (path / name).write_text(value)
        group = Group(path, self._place.version)
        with self._lock:
            self._groups[path] = group
        return group

    def give_back(self, group: Group) -> None:
        """When its run's processes are all dead."""
        with contextlib.suppress(OSError):
            group.clear()
            with self._lock:
                self._free += [path for path, one in self._groups.items() if one is group]

    def close(self) -> None:
        """Removes all; what still has processes stays, and the next executor removes it."""
        _remove(self._path)


def _delegate(path: Path) -> None:
    """Lets groups beneath a version 2 group count memory: it may then hold no process itself, so this one moves beneath it."""
    control = path / "cgroup.subtree_control"
    if "memory" in control.read_text().split():
        return
    try:
        control.write_text("+memory")
    except OSError:
        own = path / OWN
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text(str(os.getpid()))
        try:
            control.write_text("+memory")
        except OSError:
            (path / "cgroup.procs").write_text(str(os.getpid()))
            own.rmdir()
            raise


def _clear(place: Path) -> None:
    """Removes what executors left that are gone."""
    for old in place.glob(f"{PREFIX}*-*"):
        pid = old.name[len(PREFIX) :].partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(old)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        for one in path.iterdir():
            if one.is_dir():
                with contextlib.suppress(OSError):
                    one.rmdir()
        path.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
