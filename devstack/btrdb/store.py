"""Points on disk: every change of a stream is one row, a stream at a version is its changes up to it, folded.

One SQLite file; a change is durable when the call returns (the write-ahead log survives a kill -9 of the process).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from devstack.btrdb import refusals
from devstack.btrdb.points import EMPTY, MAXIMUM_TIME, MINIMUM_TIME, Points, merge, without
from devstack.btrdb.refusals import Refusal, no_such_stream

FIRST_VERSION = 10
"""A stream's version before its first change, as BTrDB counts."""
LARGEST_INSERT = 50_000
_CACHED_BYTES = 512 << 20
_DELETE = -1

_TABLES = """
CREATE TABLE IF NOT EXISTS streams (
  uuid TEXT PRIMARY KEY, collection TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, ingress TEXT NOT NULL,
  distiller TEXT NOT NULL, property_version INTEGER NOT NULL, annotations TEXT NOT NULL, version INTEGER NOT NULL,
  UNIQUE (collection, name, unit, ingress, distiller)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
  uuid TEXT NOT NULL, version INTEGER NOT NULL, policy INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  times BLOB NOT NULL, "values" BLOB NOT NULL, PRIMARY KEY (uuid, version));
CREATE TABLE IF NOT EXISTS obliterated (uuid TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class Store:
    """The file and what of it is in memory. Every method may be called from any thread; each blocks while another writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.file = folder / "btrdb.sqlite"
        self.sql = sqlite3.connect(self.file, check_same_thread=False, isolation_level=None)
        self.sql.execute("PRAGMA journal_mode=WAL")
        self.sql.execute("PRAGMA synchronous=NORMAL")
        self.sql.executescript(_TABLES)
        self._cache: OrderedDict[str, tuple[int, Points]] = OrderedDict()
        self._cached = 0

    def close(self) -> None:
        """Closes the file."""
        with self.lock:
            self.sql.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One writing transaction."""
        with self.lock:
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield self.sql
            except BaseException:
                self.sql.execute("ROLLBACK")
                raise
            self.sql.execute("COMMIT")

    def version(self, uuid: str) -> int:
        """The stream's present version; raises Refusal 404."""
        with self.lock:
            row = self.sql.execute("SELECT version FROM streams WHERE uuid = ?", (uuid,)).fetchone()
        if row is None:
            raise no_such_stream()
        return int(row[0])

    def at(self, uuid: str, version: int = 0) -> tuple[Points, int]:
        """The stream's points at a version (0: the present one), and that version; raises Refusal 404, 450."""
        with self.lock:
            present = self.version(uuid)
            wanted = version or present
            if not FIRST_VERSION <= wanted <= present:
                raise Refusal(
                    refusals.VERSION_NOT_AVAILABLE,
                    f"version {wanted} is not available; the stream has {FIRST_VERSION} to {present}",
                )
            held = self._cache.get(uuid)
            if held is not None and held[0] == wanted:
                self._cache.move_to_end(uuid)
                return held[1], wanted
            points = self._fold(uuid, wanted)
            if wanted == present:
                self._keep(uuid, wanted, points)
            return points, wanted

    def insert(self, uuid: str, new: Points, policy: int) -> int:
        """Adds points under a merge policy; gives the version that has them. Raises Refusal 404, 413, 414, 425."""
        _check(new)
        with self.lock:
            old, version = self.at(uuid)
            if not len(new):
                return version
            merged = merge(old, new, policy)
            first, last = int(new.times.min()), int(new.times.max())
            return self._append(uuid, version, (policy, first, last, new.times.tobytes(), new.values.tobytes()), merged)

    def delete(self, uuid: str, start: int, end: int) -> int:
        """Takes out points with start <= time < end; gives the version without them. Raises Refusal 404, 413."""
        check_range(start, end)
        with self.lock:
            old, version = self.at(uuid)
            return self._append(uuid, version, (_DELETE, start, end - 1, b"", b""), without(old, start, end))

    def changed(self, uuid: str, after: int, upto: int) -> list[tuple[int, int]]:
        """First and last time of every change with after < version <= upto (0: the present one); raises Refusal 404, 427."""
        present = self.version(uuid)
        upto = upto or present
        if after > upto:
            raise Refusal(refusals.INVALID_VERSIONS, f"from version {after} to {upto}: from should be the older one")
        with self.lock:
            found = self.sql.execute(
                "SELECT first, last FROM changes WHERE uuid = ? AND version > ? AND version <= ? ORDER BY first",
                (uuid, after, upto),
            )
            return [(int(first), int(last)) for first, last in found]

    def obliterate(self, uuid: str) -> None:
        """Removes the stream for ever; its UUID cannot be used again. Raises Refusal 404."""
        with self.change() as sql:
            self.version(uuid)
            sql.execute("DELETE FROM changes WHERE uuid = ?", (uuid,))
            sql.execute("DELETE FROM streams WHERE uuid = ?", (uuid,))
            sql.execute("INSERT INTO obliterated VALUES (?)", (uuid,))
            self._forget(uuid)

    def _append(self, uuid: str, version: int, row: tuple[int, int, int, bytes, bytes], points: Points) -> int:
        with self.change() as sql:
            sql.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)", (uuid, version + 1, *row))
            sql.execute("UPDATE streams SET version = ? WHERE uuid = ?", (version + 1, uuid))
        self._keep(uuid, version + 1, points)
        return version + 1

    def _fold(self, uuid: str, version: int) -> Points:
        """Replays the changes; runs of changes that only append are joined in one go."""
        rows = self.sql.execute(
            'SELECT policy, first, last, times, "values" FROM changes WHERE uuid = ? AND version <= ? ORDER BY version',
            (uuid, version),
        )
        points, tail, end = EMPTY, [], MINIMUM_TIME - 1
        for policy, first, last, times, values in rows:
            if policy != _DELETE:
                new = Points(np.frombuffer(times, np.int64), np.frombuffer(values, np.float64))
                if first > end:
                    tail.append(merge(EMPTY, new, policy))
                    end = last
                    continue
                points = merge(_join(points, tail), new, policy)
            else:
                points = without(_join(points, tail), first, last + 1)
            tail = []
            end = int(points.times[-1]) if len(points) else MINIMUM_TIME - 1
        return _join(points, tail)

    def _keep(self, uuid: str, version: int, points: Points) -> None:
        self._forget(uuid)
        self._cache[uuid] = (version, points)
        self._cached += 16 * len(points)
        while self._cached > _CACHED_BYTES and len(self._cache) > 1:
            self._forget(next(iter(self._cache)))

    def _forget(self, uuid: str) -> None:
        held = self._cache.pop(uuid, None)
        if held is not None:
            self._cached -= 16 * len(held[1])


def _join(points: Points, tail: list[Points]) -> Points:
    if not tail:
        return points
    parts = [points, *tail]
    return Points(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))


def _check(new: Points) -> None:
    if len(new) > LARGEST_INSERT:
        raise Refusal(
            refusals.INSERT_TOO_BIG, f"insert of {len(new)} points; at most {LARGEST_INSERT} are taken at once"
        )
    if not len(new):
        return
    if int(new.times.min()) < MINIMUM_TIME or int(new.times.max()) > MAXIMUM_TIME:
        raise Refusal(
            refusals.INVALID_TIME_RANGE,
            f"insert with a time outside {MINIMUM_TIME} to {MAXIMUM_TIME} ns since the epoch",
        )
    if not np.isfinite(new.values).all():
        index = int(np.flatnonzero(~np.isfinite(new.values))[0])
        raise Refusal(
            refusals.BAD_VALUE, f"insert with value {new.values[index]} at point {index}; it should be a finite number"
        )


def check_range(start: int, end: int) -> None:
    """Raises Refusal 413 unless MINIMUM_TIME <= start <= end <= MAXIMUM_TIME + 1."""
    if start > end:
        raise Refusal(refusals.INVALID_TIME_RANGE, f"start {start} is after end {end}")
    if start < MINIMUM_TIME or end > MAXIMUM_TIME + 1:
        raise Refusal(refusals.INVALID_TIME_RANGE, f"{start} to {end} is outside {MINIMUM_TIME} to {MAXIMUM_TIME}")
