"""The levels at which a sandbox stands, strongest first: which layers each is made of and which it cannot do without."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

LAYERS = (
    "namespaces",
    "root",
    "proc",
    "network",
    "keeper",
    "privileges",
    "rlimits",
    "landlock",
    "seccomp",
    "memory",
    "cgroup",
)
"""Every layer that is reported."""


class Level(StrEnum):
    """FULL: namespaces with a /proc of the run's own. NAMESPACES: /proc left out. POD: no namespace at all."""

    FULL = "full"
    NAMESPACES = "namespaces"
    POD = "pod"


_BOTH = frozenset({"privileges", "rlimits", "seccomp", "memory"})

REQUIRED = {
    Level.FULL: _BOTH | {"namespaces", "root", "network", "proc", "landlock"},
    Level.NAMESPACES: _BOTH | {"namespaces", "root", "network"},
    Level.POD: _BOTH | {"landlock", "keeper"},
}
"""What makes the level."""

LEFT_OUT = {
    Level.NAMESPACES: {"keeper": "a PID namespace ends its processes together"},
    Level.POD: dict.fromkeys(("namespaces", "root", "proc", "network"), "level pod does without"),
}
"""Layers that a level, as it is tried, has no use for, and why."""


def at_least(bar: Level) -> tuple[Level, ...]:
    """The levels to try for a bar, strongest first. FULL is NAMESPACES with nothing missing: they are tried together."""
    return (Level.NAMESPACES, Level.POD) if bar is Level.POD else (Level.NAMESPACES,)


def needed(tried: Level, bar: Level) -> frozenset[str]:
    """The layers that a sandbox tried at a level must have for a bar."""
    return REQUIRED[Level.FULL] if bar is Level.FULL else REQUIRED[tried]


def reached(tried: Level, on: Collection[str]) -> Level:
    """The level that a sandbox stands at by the layers that are on."""
    return Level.FULL if tried is Level.NAMESPACES and set(on) >= REQUIRED[Level.FULL] else tried


def lower(bar: Level, layer: str) -> str:
    """What to tell an operator when a layer is missing for a bar: the setting that lowers it, and where its price is written."""
    if bar is Level.POD:
        return "There is no lower level"
    if bar is Level.FULL and layer not in REQUIRED[Level.NAMESPACES]:
        setting = "EXECUTOR_SANDBOX_LEVEL=namespaces lowers the bar"
    else:
        setting = "EXECUTOR_SANDBOX_LEVEL=pod lowers the bar to what a pod under the default seccomp profile can have"
    return setting + "; docs/sandbox.md, 'Levels', says what is then not promised"
