"""Who calls: API keys of users, in a file of digests that may change while we run."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

import structlog

log = structlog.get_logger()

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


@dataclass(frozen=True)
class _Entry:
    user: str
    roles: frozenset[str]
    ends: float


class ApiKeys:
    """The keys file: {"keys": [{"sha256": hex digest of the key, "user": name, "roles": [...]}]}; read again when it changes.

    An entry may have "not_after", RFC 3339: from then on its key is refused. A file that cannot be read later on, for a moment or
    for long, leaves the keys as they were (see readable()).
    """

    def __init__(self, file: Path) -> None:
        """Reads the file; raises ValueError naming what is wrong with it, OSError when there is none."""
        self._file = file
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, _Entry] = {}
        self._problem = ""
        self._read()

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
        if found.ends <= time.time():
            raise UnknownKey(f"the API key of {found.user} has expired; ask your operator for a new one")
        return Caller(found.user, found.roles, key)

    def first_end(self) -> float:
        """When the first of the keys that have not ended yet will, in seconds since the epoch; inf when none does."""
        with self._lock:
            self._refresh()
            return min((entry.ends for entry in self._known.values() if entry.ends > time.time()), default=math.inf)

    def readable(self) -> bool:
        """Whether the file can be read now; where it cannot, the keys count that were read last."""
        with self._lock:
            self._refresh()
            return not self._problem

    def _refresh(self) -> None:
        """Reads the file if it has changed. One that is away, or half written, is told of once, and changes nothing."""
        try:
            self._read()
        except (OSError, ValueError) as error:
            if not self._problem:
                log.error("the keys file cannot be read; the keys that it held before count on", reason=str(error))
            self._problem = str(error)
        else:
            if self._problem:
                log.info("the keys file can be read again", file=str(self._file))
            self._problem = ""

    def _read(self) -> None:
        stat = self._file.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen == self._seen:
            return
        try:
            entries = json.loads(self._file.read_text())["keys"]
            known = {entry["sha256"].lower(): _entry(entry) for entry in entries}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{self._file}: should be {{"keys": [{{"sha256": "...", "user": "...", "roles": []}}]}}; {type(error).__name__}: {error}'
            ) from error
        self._known, self._seen = known, seen


def _entry(plain: Mapping[str, Any]) -> _Entry:
    return _Entry(str(plain["user"]), frozenset(plain.get("roles", ())), end_of(plain))


def end_of(entry: Mapping[str, Any]) -> float:
    """When the key of an entry of the keys file ends, in seconds since the epoch; infinite: never. Raises ValueError, TypeError."""
    end = entry.get("not_after")
    return math.inf if end is None else datetime.fromisoformat(end).timestamp()


def bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of 'authorization: Bearer <token>' (RFC 6750), or None."""
    for name, value in metadata:
        if name.lower() == "authorization":
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if text.lower().startswith(BEARER):
                return text[len(BEARER) :].strip() or None
    return None
