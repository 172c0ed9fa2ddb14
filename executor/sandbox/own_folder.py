"""A folder of this process alone, gone with it: what processes left that were killed is removed by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

LOCK = "lock"


class OwnFolder:
    """A new folder, locked for as long as this process lives or until close()."""

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        """prefix: of its name; parent: None for the system's folder for temporary files. Raises OSError."""
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = _locked(self.path / LOCK)
        _clear(self.path.parent, prefix)

    def close(self) -> None:
        """Removes it with all that is in it; a second time does nothing."""
        if self._lock >= 0:
            remove(self.path)
            os.close(self._lock)
            self._lock = -1


def remove(path: Path) -> None:
    """Python's own way is quick, but gives up at locked folders, and at a thousand within each other by raising."""
    with contextlib.suppress(RecursionError, OSError):
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, str(path)], stderr=subprocess.DEVNULL, check=False, timeout=60)


def _locked(path: Path) -> int:
    """A descriptor that holds the lock; raises BlockingIOError when another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _ours(path: Path) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_uid == os.geteuid() and (path / LOCK).exists()
    except OSError:
        return False


def _clear(parent: Path, prefix: str) -> None:
    """What was left by processes that were killed: their locks ended with them."""
    for old in parent.glob(prefix + "*"):
        if not _ours(old):
            continue
        with contextlib.suppress(OSError):  # also when it goes away meanwhile
            os.close(_locked(old / LOCK))
            remove(old)
