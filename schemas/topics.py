"""Every topic, declared once: who keys it by what, how many partitions, how long it keeps, how large a message may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from schemas.contracts import hook_names

RESULTS = "eventproc.results"
DEAD_LETTERS = "eventproc.dead-letters"
SCHEMAS = "eventproc.schemas"
TASKS_PREFIX = "eventproc.tasks."

DAY_MS = 24 * 3600 * 1000
HOOKS_KEPT_MS = 30 * DAY_MS
DEAD_LETTERS_KEPT_MS = 400 * DAY_MS


@dataclass(frozen=True)
class Topic:
    """A topic as it is made. key: what its messages are keyed by; retention_ms: -1 keeps for ever."""

    name: str
    key: str
    partitions: int
    retention_ms: int
    compacted: bool = False


@cache
def tasks_topic(runtime: str) -> str:
    """The topic of a runtime's tasks, for instance eventproc.tasks.py3.11; raises ValueError for a name Kafka would refuse."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,60}", runtime):
        raise ValueError(f"runtime {runtime!r}: should have 1 to 60 of A-Z a-z 0-9 . _ -")
    return TASKS_PREFIX + runtime


def topics(runtimes: tuple[str, ...], partitions: int = 6) -> tuple[Topic, ...]:
    """All topics of an installation that serves these runtimes, hooks first."""
    return (
        *(Topic(hook, "RequestID", partitions, HOOKS_KEPT_MS) for hook in hook_names()),
        *(Topic(tasks_topic(runtime), "run id", partitions, 7 * DAY_MS) for runtime in runtimes),
        Topic(RESULTS, "run id", partitions, 7 * DAY_MS),
        Topic(DEAD_LETTERS, "origin topic", 1, DEAD_LETTERS_KEPT_MS),
        Topic(SCHEMAS, "fingerprint", 1, -1, compacted=True),
    )
