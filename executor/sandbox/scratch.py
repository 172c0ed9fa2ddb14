"""Where a run writes: a tmpfs of its own, or, where there are no mounts, a folder that is watched and removed afterwards."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import stat
from pathlib import Path
from typing import Protocol

from executor.sandbox.job import SandboxUnavailable
from executor.sandbox.own_folder import OwnFolder, remove

PREFIX = "eventproc-scratch-"
ENTRIES = 100_000
"""Files and folders of one run that are counted; more are too many."""
SOCKET_PATH = 107
"""The longest path of a unix socket. Source: unix(7)."""


class Scratch(Protocol):
    """A run's scratch as the watch sees it. in_memory: whether its files are memory; cheap: whether used() costs nothing."""

    in_memory: bool
    cheap: bool

    def used(self) -> int:
        """Bytes of its files that have a name."""

    def owns(self, descriptor: int) -> bool:
        """Whether an open file is one of it."""

    def close(self) -> None:
        """Lets go of it, when all processes of the run are dead."""


class Mounted:
    """A tmpfs in the run's own mount namespace, by a descriptor of it, which is taken over. It ends with the run."""

    in_memory = True
    cheap = True

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._device = os.fstat(descriptor).st_dev

    def used(self) -> int:
        """Unlinked files that are still open too."""
        used = os.fstatvfs(self._descriptor)
        return (used.f_blocks - used.f_bfree) * used.f_frsize

    def owns(self, descriptor: int) -> bool:
        """By its device, which no other mount has."""
        return os.fstat(descriptor).st_dev == self._device

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self._descriptor)


class Folder:
    """A folder of one run: tmp, which is its scratch, and btrdb, the socket by which it reaches BTrDB."""

    cheap = False

    def __init__(self, path: Path, user: int) -> None:
        """user: who it is given to, with its group; 0: it stays this process's."""
        self._path = path
        self.tmp = path / "tmp"
        self.route = path / "btrdb"
        path.mkdir(mode=0o711 if user else 0o700)
        for folder in (self.tmp, self.tmp / "home"):
            folder.mkdir(mode=0o700)
            if user:
                os.chown(folder, user, user)
        self._user = user
        self.in_memory = _is_tmpfs(path)

    def listen(self) -> socket.socket:
        """The socket's listening end, the caller's."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.route))
        if self._user:
            os.chown(self.route, self._user, self._user)
        listener.listen(64)
        return listener

    def used(self) -> int:
        """Blocks of all its files; ENTRIES of them at most are counted, more are reported as endless."""
        total, left, waiting = 0, ENTRIES, [str(self.tmp)]
        while waiting:
            try:
                with os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        left -= 1
                        if left < 0:
                            return 1 << 62
                        with contextlib.suppress(OSError):
                            total += entry.stat(follow_symlinks=False).st_blocks * 512
                            if entry.is_dir(follow_symlinks=False):
                                waiting.append(entry.path)
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return 1 << 62  # folded so deep that nobody can count it
                continue  # it went away, or its owner may not look into it either
        return total

    def owns(self, descriptor: int) -> bool:
        """By its path: no other file can be moved or linked here, Landlock sees to that."""
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        return path.startswith(f"{self.tmp.resolve()}/")

    def close(self) -> None:
        """Removes it, whatever the run left: folders that are locked, or nested deeper than a path can be long."""
        remove(self._path)


class Folders:
    """The folders of one runtime's runs, beneath one that this process locks; what dead executors left is removed first."""

    def __init__(self, parent: Path) -> None:
        """Raises SandboxUnavailable when parent cannot be written or its path is too long for a socket's."""
        try:
            self._own = OwnFolder(PREFIX, parent)
        except OSError as error:
            raise SandboxUnavailable(
                "memory", f"no scratch in {parent}: {error}", "EXECUTOR_SCRATCH_DIR names a folder that can be written"
            ) from error
        self._path = self._own.path
        self._path.chmod(0o711)
        self._numbers = itertools.count(1)
        if len(str(self._path)) > SOCKET_PATH - len("/1234567890/btrdb"):
            self.close()
            why = f"{self._path} is too long for the paths of sockets"
            raise SandboxUnavailable("network", why, "EXECUTOR_SCRATCH_DIR names a folder with a shorter path")

    def make(self, user: int) -> Folder:
        """A new folder. Raises OSError."""
        return Folder(self._path / str(next(self._numbers)), user)

    def close(self) -> None:
        """Removes all."""
        self._own.close()


def _is_tmpfs(path: Path) -> bool:
    """By the mount that holds the path. Source: proc(5), mountinfo."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1] in ("tmpfs", "ramfs")
    return False


def is_unlinked_file(facts: os.stat_result) -> bool:
    """Whether an open file takes up space under no name."""
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0
