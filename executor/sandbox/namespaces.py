"""Which namespaces stand where, and who is who in them. Source: namespaces(7), user_namespaces(7)."""

from __future__ import annotations

import os
from pathlib import Path

NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)

OF_ZYGOTE = NEW_USER | NEW_PID | NEW_MOUNT | NEW_IPC | NEW_UTS
"""The zygote's own, entered once. Not the network's: each child has its own, and the zygote opens no socket."""

OF_CHILD = NEW_MOUNT | NEW_NET | NEW_IPC | NEW_UTS
"""Each child's, beside the PID namespace in which it is the first process and, last, its own user namespace."""

NOBODY = 65534
"""The handler's user and group, as it sees itself; the host's too where the executor may map it."""

CAP_SETUID_AND_SETGID = 0b11 << 6


def may_map_nobody() -> bool:
    """Whether this process may give the handler a user id of the host other than its own (root with its capabilities)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            break
    known = any(
        int(first) <= NOBODY < int(first) + int(count)
        for first, _, count in (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    )
    return known and os.geteuid() == 0 and held & CAP_SETUID_AND_SETGID == CAP_SETUID_AND_SETGID


def write_maps(pid: int, nobody: bool) -> None:
    """Maps ids in the fresh user namespace of a process: 0 is the executor's own user, and 65534 the host's if nobody.

    Without it the handler keeps the executor's user on the host, behind all other layers. Raises OSError.
    """
    process = Path(f"/proc/{pid}")
    if not nobody:
        # without CAP_SETGID the kernel takes a group map only when setgroups is given up for good
        (process / "setgroups").write_text("deny")
    second = f"{NOBODY} {NOBODY} 1\n" if nobody else ""
    (process / "uid_map").write_text(f"0 {os.geteuid()} 1\n{second}")
    (process / "gid_map").write_text(f"0 {os.getegid()} 1\n{second}")
