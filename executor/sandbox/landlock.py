"""Landlock: the second fence around files, TCP and signals, which needs no namespace.

What is wanted, as data, by the ABI that the kernel has. Source: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

_CREATE_RULESET = 444  # on x86-64 and aarch64
_VERSION_FLAG = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ABI_1 = (1 << 13) - 1
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SCOPE_ABSTRACT_SOCKET, SCOPE_SIGNAL = 1 << 0, 1 << 1


@dataclass(frozen=True)
class Ruleset:
    """handled_*: what is denied unless a rule allows it. paths: (path, rights) beneath it. ports: (port, rights)."""

    handled_files: int
    handled_network: int
    scoped: int
    paths: Sequence[tuple[str, int]]
    ports: Sequence[tuple[int, int]]


def abi() -> int:
    """The kernel's Landlock ABI; 0 when it has none or it is switched off."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    return max(int(version), 0)


def ruleset(version: int, readable: Sequence[str], writable: Sequence[str], scratch: str, port: int | None) -> Ruleset:
    """The rules of a run.

    readable: directories and files that may be read and executed; writable: device files; scratch: where all is allowed.
    port: the one TCP port that may be connected to; nothing may be bound.
    """
    files = _ABI_1
    if version >= 2:
        files |= REFER
    if version >= 3:
        files |= TRUNCATE
    if version >= 5:
        files |= IOCTL_DEVICE
    read = EXECUTE | READ_FILE | READ_DIR
    paths = [(path, read) for path in readable]
    paths += [(path, READ_FILE | WRITE_FILE) for path in writable]
    paths.append((scratch, files & ~IOCTL_DEVICE))
    network = BIND_TCP | CONNECT_TCP if version >= 4 else 0
    return Ruleset(
        handled_files=files,
        handled_network=network,
        scoped=SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL if version >= 6 else 0,
        paths=tuple(paths),
        ports=((port, CONNECT_TCP),) if port is not None and network else (),
    )
