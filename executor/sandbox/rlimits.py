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


def of_run(limits: Limits, counted_alone: bool) -> Mapping[str, int]:
    """By the run's limits. DATA comes on top of what the process holds when it starts.

    counted_alone: whether NPROC counts this run's processes alone. Else it counts all of its user's, here and in other pods: then
    it is MORE_PROCESSES, on top of what there is when the run starts, a wall for what forks faster than the watch counts.
    """
    found = {"DATA": limits.memory_bytes + SLACK, "NOFILE": limits.open_files, "FSIZE": limits.scratch_bytes}
    return {**found, "NPROC" if counted_alone else "MORE_PROCESSES": limits.processes * (1 if counted_alone else 4)}
