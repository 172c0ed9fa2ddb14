"""API keys of the stack's users: the file of digests that servers read, and how the development server reads it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path


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


class KeyFile:
    """The file of digests, read again when it changes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int] = (0, 0)
        self._users: dict[str, str] = {}

    def user_of(self, key: str) -> str | None:
        """The user whose key it is, or None."""
        stat = self._file.stat()
        if (stat.st_mtime_ns, stat.st_size) != self._seen:
            entries = json.loads(self._file.read_text())["keys"]
            self._users = {entry["sha256"]: entry["user"] for entry in entries}
            self._seen = (stat.st_mtime_ns, stat.st_size)
        return self._users.get(hashlib.sha256(key.encode()).hexdigest())
