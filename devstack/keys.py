"""API keys of the stack's users: the file of digests that servers read, and how the development server reads it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callers import end_of


def make_keys(users: Mapping[str, Sequence[str]], file: Path) -> dict[str, str]:
    """A new random key for each user (name -> roles); writes their digests to file (0600) and returns user -> key.

    The file: {"keys": [{"sha256": hex digest of the key, "user": name, "roles": [...]}]}.
    """
    keys = {user: secrets.token_hex(20).upper() for user in users}
    entries = [
        {"sha256": hashlib.sha256(keys[user].encode()).hexdigest(), "user": user, "roles": list(roles)}
        for user, roles in users.items()
    ]
    fresh = file.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump({"keys": entries}, out, indent=1)
    fresh.replace(file)
    return keys


@dataclass(frozen=True)
class Holder:
    """Whose key it is, and the collections (each with all below it) that it may see and change; None: all."""

    user: str
    collections: tuple[str, ...] | None = None

    def may(self, collection: str) -> bool:
        """Whether streams of that collection are this holder's to see and change."""
        return self.collections is None or any(
            collection == allowed or collection.startswith(allowed + "/") for allowed in self.collections
        )


class KeyFile:
    """The file of digests, read again when it changes.

    An entry may have "not_after", RFC 3339: from then on its key is nobody's; and "collections": a list of collections, to keep its
    key to these and what is below them.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._holders: dict[str, tuple[Holder, float]] = {}

    def holder_of(self, key: str) -> Holder | None:
        """Whose key it is, or None."""
        stat = self._file.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            entries = json.loads(self._file.read_text())["keys"]
            self._holders = {entry["sha256"].lower(): (_holder(entry), end_of(entry)) for entry in entries}
            self._seen = seen
        holder, ends = self._holders.get(hashlib.sha256(key.encode()).hexdigest(), (None, 0.0))
        return holder if time.time() < ends else None


def _holder(entry: Mapping[str, Any]) -> Holder:
    collections = entry.get("collections")
    return Holder(entry["user"], None if collections is None else tuple(c.rstrip("/") for c in collections))
