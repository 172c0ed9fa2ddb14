"""What a run's process tree holds and has used, watched from outside through the host's /proc. Source: proc(5)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from executor.sandbox.cgroup import Group
from executor.sandbox.scratch import Scratch, is_unlinked_file

SLOW_S = 0.25
"""Between looks at what costs more to see: descriptors, folders, time used."""
SOCKET_BYTES = 208 * 1024
"""What an unread socket may hold of the kernel's memory. Source: socket(7), wmem_default."""
FREE_SOCKETS = 64
"""Sockets of a run that are not counted as memory."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Held:
    """Bytes: private memory of all processes with the page tables that map it; files, in memory or on disk; sockets' buffers.

    processes: of the run, tasks: their threads counted one by one.
    """

    anonymous: int = 0
    scratch: int = 0
    disk: int = 0
    buffers: int = 0
    processes: int = 0
    tasks: int = 0

    @property
    def total(self) -> int:
        """All that is memory."""
        return self.anonymous + self.scratch + self.buffers


class Watch:
    """Watches the tree beneath a process: the first of a PID namespace, or a run's keeper, to which every orphan comes.

    Memory that no resident set shows cannot be had inside (memfd, System V, shared anonymous mappings are refused by seccomp),
    so private pages, page tables, files of the scratch and buffers of sockets are all there is.
    """

    def __init__(self, pid: int, scratch: Scratch, keeper: bool = False) -> None:
        """pid: as this process's /proc has it, before a job is there. keeper: pid is no process of the run itself."""
        self._pid = pid
        self._scratch = scratch
        self._keeper = 1 if keeper else 0
        pids, _ = _tree(pid, 100)
        inherited = [_status(one) for one in pids]
        self._inherited = sum(_private(one) for one in inherited)
        self._inherited_file = max(one.get("RssFile", 0) for one in inherited)
        self._inherited_all = max(one.get("VmRSS", 0) for one in inherited)
        self._first = pids[-1]
        self._file = self._inherited_file
        self._seldom = Held()
        self._look_again_at = 0.0
        self._cpu_before = 0.0
        self._cpu_lost = 0.0
        self.group: Group | None = None
        """The run's control group, where there is one: the kernel's own count and limit."""
        self.peak = 0

    def join(self, group: Group) -> None:
        """Puts what is watched into a control group. Raises OSError."""
        group.add(_tree(self._pid, 100)[0])
        self.group = group

    def begin(self, limit: int) -> None:
        """From here on the run's own doing is counted."""
        if self.group is not None:
            self.group.limit(limit)

    def killed_by_kernel(self) -> bool:
        """Whether the kernel has killed a process of the run at its limit."""
        return self.group is not None and self.group.killed()

    def sample(self, limit: int, most: int, *, closely: bool = False) -> Held:
        """What is held now; cheap, and looked at closely only when the cheap figure (which counts shared pages often) is over.

        limit: of memory; most: of processes and threads, beyond which no more of them are looked at. closely: look at all now.
        Updates peak. A tree that is gone holds nothing.
        """
        pids, tasks = _tree(self._pid, most + self._keeper)
        if tasks - self._keeper > most:
            return replace(self._seldom, processes=len(pids) - self._keeper, tasks=tasks - self._keeper)
        anonymous, tables = 0, 0
        for pid in pids:
            status = _status(pid)
            anonymous += _private(status)
            tables += status.get("VmPTE", 0)
            if pid == self._first:
                self._file = status.get("RssFile", self._file)
        if closely or time.monotonic() >= self._look_again_at:
            self._seldom = self._look(pids)
            self._look_again_at = time.monotonic() + SLOW_S
        held = replace(
            self._seldom,
            anonymous=max(0, anonymous - self._inherited),
            scratch=self._scratch.used() if self._scratch.in_memory and self._scratch.cheap else self._seldom.scratch,
            processes=len(pids) - self._keeper,
            tasks=tasks - self._keeper,
        )
        if held.total > limit:
            exact = [_proportional(pid) for pid in pids]
            if all(value is not None for value in exact):
                held = replace(held, anonymous=sum(value or 0 for value in exact) + tables)
        self.peak = max(self.peak, held.total)
        return held

    def peak_with(self, max_rss: int) -> int:
        """The peak, the kernel's high-water mark of one process taken in (what rose and fell between two samples)."""
        own = max_rss - self._inherited_all - max(0, self._file - self._inherited_file)
        return max(self.peak, own, 0 if self.group is None else self.group.peak())

    def cpu_with(self, buried_s: float) -> float:
        """Seconds that the whole tree computed. buried_s: as its first process's death told, without those it never waited for."""
        return max(buried_s + self._cpu_lost, self._cpu_before + self._cpu_lost)

    def _look(self, pids: Iterable[int]) -> Held:
        """Sockets, files without a name, folders; and the time used."""
        self._count_cpu(pids)
        sockets: set[int] = set()
        unlinked: dict[int, int] = {}
        for pid in pids:
            for facts in _open_files(pid):
                if stat.S_ISSOCK(facts.st_mode):
                    sockets.add(facts.st_ino)
                elif not self._scratch.cheap and is_unlinked_file(facts):
                    unlinked[facts.st_ino] = facts.st_blocks * 512
        files = self._scratch.used() + sum(unlinked.values())
        buffers = max(0, len(sockets) - FREE_SOCKETS) * SOCKET_BYTES
        in_memory = self._scratch.in_memory
        return Held(scratch=files if in_memory else 0, disk=0 if in_memory else files, buffers=buffers)

    def _count_cpu(self, pids: Iterable[int]) -> None:
        """A process that ends unwaited for takes its time out of the sum: the sum's falls are kept."""
        now = sum(_cpu(pid) for pid in pids)
        self._cpu_lost += max(0.0, self._cpu_before - now)
        self._cpu_before = now


def _private(status: dict[str, int]) -> int:
    return status.get("RssAnon", 0) + status.get("VmPTE", 0)


def pid_of(pidfd: int) -> int:
    """The process of a pidfd as this process's /proc numbers it; -1 when it is gone."""
    return int(_after(_read(f"/proc/self/fdinfo/{pidfd}"), b"\nPid:") or -1)


def children_of(pid: int) -> list[int]:
    """The children of a process's first thread; none when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def private_bytes(pid: int) -> int:
    """Private memory of one process with the page tables that map it; 0 when it is gone."""
    return _private(_status(pid))


def _tree(pid: int, most: int) -> tuple[list[int], int]:
    """(process ids, how many threads they have); stops at more than most, for they may come faster than they are counted."""
    found, index, tasks = [pid], 0, 0
    while index < len(found) and tasks <= most:
        process = f"/proc/{found[index]}/task"
        index += 1
        try:
            for thread in os.listdir(process):  # noqa: PTH208
                tasks += 1
                with open(f"{process}/{thread}/children", "rb", 0) as file:  # noqa: PTH123 - on every tick of every run
                    found += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found, tasks


def _open_files(pid: int) -> Iterable[os.stat_result]:
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            try:
                yield os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116
            except OSError:
                continue  # it was closed meanwhile
    except OSError:
        return


def _cpu(pid: int) -> float:
    """Seconds of a process and of the children that it has waited for."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def _status(pid: int) -> dict[str, int]:
    """The sizes of /proc/PID/status that are looked at, in bytes; empty when it is gone."""
    text = _read(f"/proc/{pid}/status")
    found = {name: _after(text, line) for name, line in _SIZES.items()}
    return {name: int(size) * 1024 for name, size in found.items() if size}


_SIZES = {name: f"\n{name}:".encode() for name in ("VmRSS", "RssAnon", "RssFile", "VmPTE")}


def _after(text: bytes, name: bytes) -> bytes:
    """The word after a name; empty when there is none."""
    at = text.find(name)
    return text[at + len(name) : at + len(name) + 40].split(None, 1)[0] if at >= 0 else b""


def _read(path: str) -> bytes:
    """A small file of /proc, in as few calls as can be: it is read on every tick of every run. Empty when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        return os.read(descriptor, 8192)
    except ProcessLookupError:
        return b""
    finally:
        os.close(descriptor)


def _proportional(pid: int) -> int | None:
    """Anonymous pages, each shared one divided by those that share it; None where it may not be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("Pss_Anon:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except PermissionError:
        return None
    return None
