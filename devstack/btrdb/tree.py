"""A stream at one version: leaves of sorted points, each with its statistics at two finer levels. Nothing of it ever changes.

Root: the list of leaves, each with first and last time and statistics of all its points. Below: a summary of the leaf, one row
per window of a power of two that holds some SUMMED points. Below that: the points, two columns. A question goes down only where
a window begins or ends, so it costs the number of its windows and leaves, not of the points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from devstack.btrdb.points import EMPTY, Points, Times, WindowStats
from devstack.btrdb.sums import NONE, Sums, join, of_points

LEAF = 1 << 16
"""Points in a leaf: joined up to this many, cut when there are twice as many."""
SUMMED = 64

IndexOf = Callable[[Times], Times]


@dataclass(frozen=True)
class Leaf:
    """number: its own, ascending in the order of making. shift: the summary's windows have 2**shift ns; total: one row."""

    number: int
    first: int
    last: int
    shift: int
    total: Sums

    @property
    def count(self) -> int:
        """How many points."""
        return int(self.total.count[0])


class Source(Protocol):
    """Where the levels below the root are read."""

    def points(self, leaf: Leaf) -> Points:
        """The leaf's points."""

    def summary(self, leaf: Leaf) -> Sums:
        """The leaf's summary; its index is time >> leaf.shift."""


def summarize(points: Points) -> tuple[int, Sums]:
    """The shift at which windows hold some SUMMED points, and the summary there; points: at least one."""
    first, last = int(points.times[0]), int(points.times[-1])
    windows = max(1, len(points) // SUMMED)
    shift = max(0, ((last - first) // windows).bit_length())
    return shift, of_points(points, points.times >> shift)


def cut(points: Points) -> list[Points]:
    """Points in portions for leaves, all of about the same size."""
    if not len(points):
        return []
    portions = len(points) // (2 * LEAF) * 2 or 1
    times, values = np.array_split(points.times, portions), np.array_split(points.values, portions)
    return [Points(t, v) for t, v in zip(times, values, strict=True)]


class View:
    """Reads a stream at one version. Any thread; a leaf that is not in memory is read from the disk."""

    def __init__(self, leaves: Sequence[Leaf], source: Source) -> None:
        """leaves: in the order of their times."""
        self.leaves = tuple(leaves)
        self._source = source
        self._firsts = np.array([leaf.first for leaf in leaves], np.int64)
        self._lasts = np.array([leaf.last for leaf in leaves], np.int64)

    def __len__(self) -> int:
        return sum(leaf.count for leaf in self.leaves)

    def touched(self, first: int, last: int) -> tuple[int, int]:
        """Leaves low to high (not included) may hold times from first to last; low == high: it is where they would go."""
        low = int(np.searchsorted(self._lasts, first, "left"))
        return low, max(low, int(np.searchsorted(self._firsts, last, "right")))

    def parts(self, start: int, end: int, size: int) -> Iterator[Points]:
        """Points with start <= time < end, in portions of at most size, leaf by leaf."""
        low, high = self.touched(start, end - 1)
        for leaf in self.leaves[low:high]:
            inside = self._source.points(leaf).between(start, end)
            for at in range(0, len(inside), size):
                yield Points(inside.times[at : at + size], inside.values[at : at + size])

    def between(self, start: int, end: int) -> Points:
        """Points with start <= time < end."""
        parts = list(self.parts(start, end, 2 * LEAF))
        if len(parts) < 2:
            return parts[0] if parts else EMPTY
        return Points(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))

    def nearest(self, time: int, backward: bool) -> tuple[int, float] | None:
        """The first point at or after time, or, backward, the last before it; None when there is none."""
        if backward:
            at = int(np.searchsorted(self._firsts, time, "left")) - 1
        else:
            at = int(np.searchsorted(self._lasts, time, "left"))
        if not 0 <= at < len(self.leaves):
            return None
        points = self._source.points(self.leaves[at])
        index = int(np.searchsorted(points.times, time, "left")) - (1 if backward else 0)
        return int(points.times[index]), float(points.values[index])

    def aligned_windows(self, start: int, end: int, pointwidth: int) -> WindowStats:
        """Windows of 2**pointwidth ns; start and end lose their lowest bits first; empty windows are left out."""
        start, end = start >> pointwidth << pointwidth, end >> pointwidth << pointwidth
        found = self._sums(start, end, pointwidth, lambda times: times >> pointwidth)
        return _stats(found, found.index << pointwidth)

    def windows(self, start: int, end: int, width: int) -> WindowStats:
        """Windows of width ns from start on, whole ones only; empty windows are left out."""
        end = start + (end - start) // width * width
        found = self._sums(start, end, width.bit_length() - 1, lambda times: (times - start) // width)
        return _stats(found, start + found.index * width)

    def _sums(self, start: int, end: int, shift: int, index_of: IndexOf) -> Sums:
        """Rows by index_of(times) for start <= time < end; windows have at least 2**shift ns and begin at start."""
        low, high = self.touched(start, end - 1)
        parts: list[Sums] = [NONE]
        for leaf in self.leaves[low:high]:
            ends = index_of(np.array([leaf.first, leaf.last], np.int64))
            if start <= leaf.first and leaf.last < end and ends[0] == ends[1]:
                parts.append(replace(leaf.total, index=ends[:1]))
            elif shift < leaf.shift:
                inside = self._source.points(leaf).between(start, end)
                parts.append(of_points(inside, index_of(inside.times)))
            else:
                parts.append(self._of_leaf(leaf, start, end, index_of))
        return join(parts)

    def _of_leaf(self, leaf: Leaf, start: int, end: int, index_of: IndexOf) -> Sums:
        """By the leaf's summary where one of its rows lies in one window, by its points where not."""
        summary = self._source.summary(leaf)
        opens = np.maximum(summary.index << leaf.shift, leaf.first)
        closes = np.minimum(((summary.index + 1) << leaf.shift) - 1, leaf.last)
        index = index_of(opens)
        whole = (opens >= start) & (closes < end) & (index == index_of(closes))
        rows = replace(summary.at(whole), index=index[whole])
        divided = summary.at(~whole & (closes >= start) & (opens < end))
        if not len(divided):
            return rows
        points = self._source.points(leaf).between(start, end)
        among = np.isin(points.times >> leaf.shift, divided.index)
        rest = Points(points.times[among], points.values[among])
        both = _concatenated(rows, of_points(rest, index_of(rest.times)))
        return both.at(np.argsort(both.index, kind="stable"))


def _concatenated(one: Sums, other: Sums) -> Sums:
    return Sums(*(np.concatenate(pair) for pair in zip(one.columns(), other.columns(), strict=True)))


def _stats(sums: Sums, times: Times) -> WindowStats:
    spread = np.sqrt(sums.spread / np.maximum(sums.count, 1))
    return WindowStats(times, sums.minimum, sums.mean, sums.maximum, sums.count.astype(np.uint64), spread)
