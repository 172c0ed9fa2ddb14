"""When a zygote has served long enough: by its age, and by what it has grown since it was warm."""

from __future__ import annotations

import time
from dataclasses import dataclass

from executor.sandbox.memory import children_of, private_bytes

MIB = 1024 * 1024


@dataclass(frozen=True)
class Lifetime:
    """age_s: of a zygote; growth_bytes: of its private memory. At either another takes its place."""

    age_s: float = 6 * 3600.0
    growth_bytes: int = 256 * MIB


class Age:
    """How old a warm zygote is, and how much it has grown."""

    def __init__(self, launcher: int) -> None:
        """launcher: the process whose only child the zygote is, in this process's /proc."""
        found = children_of(launcher)
        self._pid = found[0] if found else -1
        self._born = time.monotonic()
        self._held = private_bytes(self._pid)

    def held_bytes(self) -> int:
        """Private memory now; 0 when it is gone."""
        return private_bytes(self._pid)

    def over(self, lifetime: Lifetime) -> str:
        """Why it should be replaced; empty while it should not."""
        age = time.monotonic() - self._born
        if age >= lifetime.age_s:
            return f"it is {age:.0f} s old"
        grown = self.held_bytes() - self._held
        if grown >= lifetime.growth_bytes:
            return f"it has grown by {grown // MIB} MiB"
        return ""
