"""Who calls: API keys of users, in a file of digests that may change while we run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

ADMIN = "admin"
BEARER = "bearer "


class UnknownKey(ValueError):
    """The call comes without a key that is known here; the text says what to do."""


@dataclass(frozen=True)
class Caller:
    """A user with the key that the call came with."""

    user: str
    roles: frozenset[str]
    key: str

    @property
    def admin(self) -> bool:
        """Whether the user may do what owners may, with everybody's handlers, runs and files."""
        return ADMIN in self.roles


class ApiKeys:
    """The keys file: {"keys": [{"sha256": hex digest of the key, "user": name, "roles": [...]}]}; read again when it changes."""

    def __init__(self, file: Path) -> None:
        """Reads the file; raises ValueError naming what is wrong with it."""
        self._file = file
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, tuple[str, frozenset[str]]] = {}
        self._refresh()

    def caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Who the call's metadata (or an HTTP request's headers) says it is. Raises UnknownKey saying what to do."""
        key = bearer(metadata)
        if key is None:
            raise UnknownKey("the call has no API key; connect with Connection(endpoint, apikey) or set BTRDB_API_KEY")
        return self.of_key(key)

    def of_key(self, key: str) -> Caller:
        """Whose key it is. Raises UnknownKey."""
        with self._lock:
            self._refresh()
            # looked up by digest: how long it takes says nothing about the key
            found = self._known.get(hashlib.sha256(key.encode()).hexdigest())
        if found is None:
            raise UnknownKey("the API key is not known here; check it, or ask your operator for a new one")
        return Caller(found[0], found[1], key)

    def _refresh(self) -> None:
        stat = self._file.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen == self._seen:
            return
        try:
            entries = json.loads(self._file.read_text())["keys"]
            known = {
                entry["sha256"].lower(): (str(entry["user"]), frozenset(entry.get("roles", ()))) for entry in entries
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{self._file}: should be {{"keys": [{{"sha256": "...", "user": "...", "roles": []}}]}}; {type(error).__name__}: {error}'
            ) from error
        self._known, self._seen = known, seen


def bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of 'authorization: Bearer <token>' (RFC 6750), or None."""
    for name, value in metadata:
        if name.lower() == "authorization":
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if text.lower().startswith(BEARER):
                return text[len(BEARER) :].strip() or None
    return None
