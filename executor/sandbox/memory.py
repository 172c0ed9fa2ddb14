"""How much memory a run's process tree holds, watched from outside through the host's /proc. Source: proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Bytes: anonymous memory of all processes, files of the scratch, and processes counted."""

    anonymous: int
    scratch: int
    processes: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.anonymous + self.scratch


class Watch:
    """Watches the tree of a PID namespace's first process; every orphan in it becomes that one's child.

    Memory that no resident set shows cannot be had inside (memfd, System V, shared anonymous mappings are refused by seccomp),
    so anonymous pages and the scratch are all there is.
    """

    def __init__(self, pid: int, scratch: int) -> None:
        """pid: of the first process, in this process's /proc; scratch: a descriptor of its mount, not taken over."""
        self._pid = pid
        self._scratch = scratch
        inherited = _status(pid)
        self._inherited = inherited.get("RssAnon", 0)
        self._inherited_file = inherited.get("RssFile", 0)
        self._inherited_all = inherited.get("VmRSS", 0)
        self._file = self._inherited_file
        self.peak = 0

    def sample(self, limit: int) -> Held:
        """What is held now; cheap, and looked at closely only when the cheap figure (which counts shared pages often) is over.

        Updates peak. A tree that is gone holds nothing.
        """
        pids = _tree(self._pid)
        anonymous = 0
        for pid in pids:
            status = _status(pid)
            anonymous += status.get("RssAnon", 0)
            if pid == self._pid:
                self._file = status.get("RssFile", self._file)
        held = Held(max(0, anonymous - self._inherited), self._scratch_used(), len(pids))
        if held.total > limit:
            exact = [_proportional(pid) for pid in pids]
            if all(value is not None for value in exact):
                held = Held(sum(value or 0 for value in exact), held.scratch, held.processes)
        self.peak = max(self.peak, held.total)
        return held

    def peak_with(self, max_rss: int) -> int:
        """The peak, the kernel's high-water mark of the first process taken in (what rose and fell between two samples)."""
        own = max_rss - self._inherited_all - max(0, self._file - self._inherited_file)
        return max(self.peak, own)

    def _scratch_used(self) -> int:
        used = os.fstatvfs(self._scratch)
        return (used.f_blocks - used.f_bfree) * used.f_frsize


def pid_of(pidfd: int) -> int:
    """The process of a pidfd as this process's /proc numbers it; -1 when it is gone."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1


def _tree(pid: int) -> list[int]:
    found, index = [pid], 0
    while index < len(found):
        process = f"/proc/{found[index]}/task"
        index += 1
        try:
            for thread in os.listdir(process):  # noqa: PTH208
                with open(f"{process}/{thread}/children") as file:  # noqa: PTH123 - on every tick of every run
                    found += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def _status(pid: int) -> dict[str, int]:
    """The sizes of /proc/PID/status, in bytes."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
            lines = [line.split() for line in file if line.endswith(" kB\n")]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {words[0][:-1]: int(words[1]) * 1024 for words in lines}


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
