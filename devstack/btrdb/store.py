"""Streams on disk: leaves of points that are written once, and which of them make up a stream at each of its versions.

One SQLite file; a change is durable when the call returns (the write-ahead log survives a kill -9 of the process). A change
writes the leaves that it touches anew and marks the old ones dead from its version on, so every version stays readable.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from devstack.btrdb import refusals
from devstack.btrdb.points import EMPTY, MAXIMUM_TIME, MINIMUM_TIME, Points, merge, without
from devstack.btrdb.refusals import Refusal, no_such_stream
from devstack.btrdb.sums import Sums, of_points
from devstack.btrdb.tree import LEAF, Leaf, View, cut, summarize

FIRST_VERSION = 10
"""A stream's version before its first change, as BTrDB counts."""
LARGEST_INSERT = 50_000
LAYOUT = 2
_CACHED_BYTES = 512 << 20
_CACHED_VIEWS = 10_000

_TABLES = """
CREATE TABLE IF NOT EXISTS streams (
  uuid TEXT PRIMARY KEY, collection TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, ingress TEXT NOT NULL,
  distiller TEXT NOT NULL, property_version INTEGER NOT NULL, annotations TEXT NOT NULL, version INTEGER NOT NULL,
  UNIQUE (collection, name, unit, ingress, distiller)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaves (
  number INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL, born INTEGER NOT NULL, dead INTEGER,
  first INTEGER NOT NULL, last INTEGER NOT NULL, shift INTEGER NOT NULL,
  count INTEGER NOT NULL, minimum REAL NOT NULL, mean REAL NOT NULL, maximum REAL NOT NULL, spread REAL NOT NULL,
  times BLOB NOT NULL, "values" BLOB NOT NULL, summary BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS leaves_of ON leaves (uuid, dead, first);
CREATE TABLE IF NOT EXISTS changes (
  uuid TEXT NOT NULL, version INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (uuid, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS obliterated (uuid TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_LEAF = "number, first, last, shift, count, minimum, mean, maximum, spread"


class Store:
    """The file and what of it is in memory. Every method may be called from any thread; each blocks while another writes."""

    def __init__(self, folder: Path) -> None:
        """Raises RuntimeError when the folder holds data in another layout."""
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.file = folder / "btrdb.sqlite"
        self.sql = sqlite3.connect(self.file, check_same_thread=False, isolation_level=None)
        self.sql.execute("PRAGMA journal_mode=WAL")
        self.sql.execute("PRAGMA synchronous=NORMAL")
        self._check_layout()
        self.sql.executescript(_TABLES)
        self._views: OrderedDict[str, tuple[int, View]] = OrderedDict()
        self._read: OrderedDict[tuple[int, bool], Points | Sums] = OrderedDict()
        self._read_bytes = 0

    def _check_layout(self) -> None:
        found = self.sql.execute("PRAGMA user_version").fetchone()[0]
        if found != LAYOUT and self.sql.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise RuntimeError(
                f"{self.file} has layout {found}, this server reads {LAYOUT}: remove the file and ingest again"
            )
        self.sql.execute(f"PRAGMA user_version = {LAYOUT}")

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

    def at(self, uuid: str, version: int = 0) -> tuple[View, int]:
        """The stream at a version (0: the present one), and that version; raises Refusal 404, 450."""
        with self.lock:
            present = self.version(uuid)
            wanted = version or present
            if not FIRST_VERSION <= wanted <= present:
                raise _no_version(wanted, present)
            held = self._views.get(uuid)
            if held is not None and held[0] == wanted:
                self._views.move_to_end(uuid)
                return held[1], wanted
            rows = self.sql.execute(
                f"SELECT {_LEAF} FROM leaves WHERE uuid = ? AND (dead IS NULL OR dead > ?) AND born <= ?"
                " ORDER BY first, number",
                (uuid, wanted, wanted),
            )
            view = View([_leaf(row) for row in rows], self)
            if wanted == present:
                self._keep(uuid, wanted, view)
            return view, wanted

    def insert(self, uuid: str, new: Points, policy: int) -> int:
        """Adds points under a merge policy; gives the version that has them. Raises Refusal 404, 413, 414, 425."""
        _check(new)
        with self.lock:
            view, version = self.at(uuid)
            if not len(new):
                return version
            first, last = int(new.times.min()), int(new.times.max())
            low, high = _neighbours(view, *view.touched(first, last), len(new))
            old = self._joined(view.leaves[low:high])
            merged = merge(old, new, policy)
            if _same(merged, old):
                low, high, merged = high, high, EMPTY  # all of it was there: no leaf changes
            return self._change(uuid, version + 1, (first, last), low, high, merged)

    def delete(self, uuid: str, start: int, end: int) -> int:
        """Takes out points with start <= time < end; gives the version without them. Raises Refusal 404, 413."""
        check_range(start, end)
        with self.lock:
            view, version = self.at(uuid)
            low, high = view.touched(start, end - 1)
            old = self._joined(view.leaves[low:high])
            left = without(old, start, end)
            if len(left) == len(old):
                low, high, left = high, high, EMPTY
            return self._change(uuid, version + 1, (start, end - 1), low, high, left)

    def changed(self, uuid: str, after: int, upto: int) -> list[tuple[int, int]]:
        """First and last time of every change with after < version <= upto (0: the present one); raises Refusal 404, 427, 450."""
        present = self.version(uuid)
        upto = upto or present
        if upto > present:
            raise _no_version(upto, present)
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
            sql.execute("DELETE FROM leaves WHERE uuid = ?", (uuid,))
            sql.execute("DELETE FROM changes WHERE uuid = ?", (uuid,))
            sql.execute("DELETE FROM streams WHERE uuid = ?", (uuid,))
            sql.execute("INSERT INTO obliterated VALUES (?)", (uuid,))
            self._views.pop(uuid, None)

    def points(self, leaf: Leaf) -> Points:
        """The leaf's points; raises Refusal 404 when its stream has been obliterated meanwhile."""
        found = self._get(leaf, 'times, "values"', False)
        assert isinstance(found, Points)
        return found

    def summary(self, leaf: Leaf) -> Sums:
        """The leaf's summary; raises Refusal 404 when its stream has been obliterated meanwhile."""
        found = self._get(leaf, "summary, NULL", True)
        assert isinstance(found, Sums)
        return found

    def forget(self) -> None:
        """Drops what is in memory, as a restart does."""
        with self.lock:
            self._views.clear()
            self._read.clear()
            self._read_bytes = 0

    def _change(self, uuid: str, version: int, span: tuple[int, int], low: int, high: int, points: Points) -> int:
        """Puts points in the place of the leaves low to high (not included), in one transaction."""
        view, _ = self.at(uuid)
        with self.change() as sql:
            dead = [(version, leaf.number) for leaf in view.leaves[low:high]]
            sql.executemany("UPDATE leaves SET dead = ? WHERE number = ?", dead)
            fresh = [_write(sql, uuid, version, portion) for portion in cut(points)]
            sql.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (uuid, version, *span))
            sql.execute("UPDATE streams SET version = ? WHERE uuid = ?", (version, uuid))
        leaves = [*view.leaves[:low], *fresh, *view.leaves[high:]]
        self._keep(uuid, version, View(leaves, self))
        return version

    def _joined(self, leaves: Sequence[Leaf]) -> Points:
        parts = [self.points(leaf) for leaf in leaves] or [EMPTY]
        return Points(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))

    def _get(self, leaf: Leaf, columns: str, summary: bool) -> Points | Sums:
        key = (leaf.number, summary)
        with self.lock:
            if key in self._read:
                self._read.move_to_end(key)
                return self._read[key]
            row = self.sql.execute(f"SELECT {columns} FROM leaves WHERE number = ?", (leaf.number,)).fetchone()
            if row is None:
                raise no_such_stream()
            found = _summary(row[0]) if summary else Points(np.frombuffer(row[0], np.int64), np.frombuffer(row[1]))
            self._read[key] = found
            self._read_bytes += _size(found)
            while self._read_bytes > _CACHED_BYTES and len(self._read) > 1:
                self._read_bytes -= _size(self._read.popitem(last=False)[1])
            return found

    def _keep(self, uuid: str, version: int, view: View) -> None:
        self._views[uuid] = (version, view)
        self._views.move_to_end(uuid)
        while len(self._views) > _CACHED_VIEWS:
            self._views.popitem(last=False)


def _no_version(wanted: int, present: int) -> Refusal:
    return Refusal(
        refusals.VERSION_NOT_AVAILABLE,
        f"version {wanted} is not available; the stream has {FIRST_VERSION} to {present}",
    )


def _same(one: Points, other: Points) -> bool:
    return np.array_equal(one.times, other.times) and np.array_equal(one.values, other.values)


def _neighbours(view: View, low: int, high: int, size: int) -> tuple[int, int]:
    """Takes in small leaves beside the place of an insert of that size, so that small inserts do not leave a leaf each.

    A leaf is taken in only when it is at most twice as large: so a point is written anew some log2(LEAF) times at most.
    """
    size += sum(leaf.count for leaf in view.leaves[low:high])
    while low > 0 and view.leaves[low - 1].count <= min(2 * size, LEAF - size):
        low -= 1
        size += view.leaves[low].count
    while high < len(view.leaves) and view.leaves[high].count <= min(2 * size, LEAF - size):
        size += view.leaves[high].count
        high += 1
    return low, high


def _write(sql: sqlite3.Connection, uuid: str, version: int, points: Points) -> Leaf:
    first, last = int(points.times[0]), int(points.times[-1])
    shift, summary = summarize(points)
    total = of_points(points, np.zeros(len(points), np.int64))
    plain = [column[0].item() for column in total.columns()[1:]]
    body = (points.times.tobytes(), points.values.tobytes(), b"".join(c.tobytes() for c in summary.columns()))
    row = (uuid, version, first, last, shift, *plain, *body)
    done = sql.execute(
        "INSERT INTO leaves (uuid, born, first, last, shift, count, minimum, mean, maximum, spread, times, "
        f'"values", summary) VALUES ({", ".join("?" * len(row))})',
        row,
    )
    assert done.lastrowid is not None
    return Leaf(done.lastrowid, first, last, shift, total)


def _leaf(row: tuple[int, int, int, int, int, float, float, float, float]) -> Leaf:
    number, first, last, shift, count, *floats = row
    minimum, mean, maximum, spread = (np.array([value], np.float64) for value in floats)
    total = Sums(np.zeros(1, np.int64), np.array([count], np.int64), minimum, mean, maximum, spread)
    return Leaf(number, first, last, shift, total)


def _summary(body: bytes) -> Sums:
    whole, real = np.frombuffer(body, np.int64).reshape(6, -1), np.frombuffer(body, np.float64).reshape(6, -1)
    return Sums(whole[0], whole[1], real[2], real[3], real[4], real[5])


def _size(read: Points | Sums) -> int:
    return len(read) * (16 if isinstance(read, Points) else 48)


def _check(new: Points) -> None:
    if len(new) > LARGEST_INSERT:
        raise Refusal(
            refusals.INSERT_TOO_BIG, f"insert of {len(new)} points; at most {LARGEST_INSERT} are taken at once"
        )
    if not len(new):
        return
    # a range's end is left out and at most MAXIMUM_TIME: what stood there could not be read
    if int(new.times.min()) < MINIMUM_TIME or int(new.times.max()) >= MAXIMUM_TIME:
        raise Refusal(
            refusals.INVALID_TIME_RANGE,
            f"insert with a time outside {MINIMUM_TIME} to {MAXIMUM_TIME - 1} ns since the epoch",
        )
    if not np.isfinite(new.values).all():
        index = int(np.flatnonzero(~np.isfinite(new.values))[0])
        raise Refusal(
            refusals.BAD_VALUE, f"insert with value {new.values[index]} at point {index}; it should be a finite number"
        )


def check_range(start: int, end: int) -> None:
    """Raises Refusal 413 unless MINIMUM_TIME <= start < end <= MAXIMUM_TIME (btrdb-server's quasar.go)."""
    if start >= end:
        raise Refusal(refusals.INVALID_TIME_RANGE, f"start {start} should be before end {end}")
    if start < MINIMUM_TIME or end > MAXIMUM_TIME:
        raise Refusal(refusals.INVALID_TIME_RANGE, f"{start} to {end} is outside {MINIMUM_TIME} to {MAXIMUM_TIME}")
