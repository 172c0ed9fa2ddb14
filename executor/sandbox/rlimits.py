"""Resource limits of each process of a run, as data; a child sets them itself before it sees user bytes.

Source: setrlimit(2). RLIMIT_NPROC counts within the child's own user namespace, so it is set after entering it.
"""

from __future__ import annotations

from collections.abc import Mapping

from executor.sandbox.job import MIB, Limits

SLACK = 256 * MIB
"""Private memory that is mapped and never touched (thread stacks, allocators' reserves); the tree's true use is watched."""


def fixed() -> Mapping[str, int]:
    """The same for every run: no core files, no locked memory, no message queues, no priority games."""
    return {"CORE": 0, "MEMLOCK": 64 * 1024, "MSGQUEUE": 0, "NICE": 0, "RTPRIO": 0, "SIGPENDING": 1024}


def of_run(limits: Limits) -> Mapping[str, int]:
    """By the run's limits. DATA comes on top of what the process holds when it starts."""
    return {
        "DATA": limits.memory_bytes + SLACK,
        "NPROC": limits.processes,
        "NOFILE": limits.open_files,
        "FSIZE": limits.scratch_bytes,
    }
