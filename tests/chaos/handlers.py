"""What users registered: quick ones, slow ones, ones that fail in each way, one that tells nobody. Pickled, so self-contained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Registered:
    """A handler as it is registered: its user, its tags, and whom it tells of success and failure ('': nobody)."""

    name: str
    user: str
    tags: tuple[str, ...]
    function: Callable[..., Any]
    on_success: str
    on_failure: str


def quick(File: str, **kwargs: Any) -> str:
    return File


def again(RequestID: str, **kwargs: Any) -> str:
    print("looking at", RequestID)
    return RequestID


def raises(**kwargs: Any) -> None:
    raise ValueError("as always")


def naps(RequestID: str, **kwargs: Any) -> str:
    import time

    time.sleep(int(RequestID[:2], 16) / 256)
    return "slept"


def sleeps_too_long(**kwargs: Any) -> None:
    import time

    time.sleep(600)


def exits(**kwargs: Any) -> None:
    import os

    os._exit(3)


ALL = (
    Registered("quick", "alice", ("every",), quick, "quick@example.com", "quick@example.com"),
    Registered("again", "bob", ("every",), again, "again@example.com", "again@example.com"),
    Registered("raises", "alice", ("every",), raises, "nobody@example.com", "raises@example.com"),
    Registered("naps", "bob", ("every",), naps, "naps@example.com", "naps@example.com"),
    Registered("quiet", "bob", ("every",), quick, "", "quiet@example.com"),
    Registered("too-long", "alice", ("rare",), sleeps_too_long, "", "long@example.com"),
    Registered("exits", "alice", ("rare",), exits, "", "exits@example.com"),
)
