"""Points of one stream as two arrays: merging, cutting, snapping. Pure functions of numpy arrays.

times: int64, ns since the epoch, ascending; values: float64, as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

MINIMUM_TIME = -(16 << 56)
MAXIMUM_TIME = (48 << 56) - 1

NEVER, EQUAL, RETAIN, REPLACE = 0, 1, 2, 3


@dataclass(frozen=True)
class Points:
    """Points in the order of their times."""

    times: Times
    values: Values

    def between(self, start: int, end: int) -> Points:
        """Those with start <= time < end; a view."""
        low, high = np.searchsorted(self.times, [start, end], "left")
        return Points(self.times[low:high], self.values[low:high])

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class WindowStats:
    """Statistics of windows that hold at least one point; each array has one entry per window, times are their starts."""

    times: Times
    minimum: Values
    mean: Values
    maximum: Values
    count: npt.NDArray[np.uint64]
    stddev: Values


EMPTY = Points(np.empty(0, np.int64), np.empty(0, np.float64))


def merge(old: Points, new: Points, policy: int) -> Points:
    """old and new together under BTrDB's merge policy; new need not be sorted. Among equal times old points stand first.

    never: all stay; equal: a point equal in time and value goes; retain: the old one stays; replace: the new one stays.
    """
    if not len(new):
        return old
    order = np.argsort(new.times, kind="stable")
    times, values = new.times[order], new.values[order]
    low = int(np.searchsorted(old.times, times[0], "left"))
    high = int(np.searchsorted(old.times, times[-1], "right"))
    near = Points(old.times[low:high], old.values[low:high])
    near, fresh = _settle(near, Points(times, values), policy)
    if not len(near):
        middle = fresh
    else:
        both_times = np.concatenate([near.times, fresh.times])
        both_values = np.concatenate([near.values, fresh.values])
        order = np.argsort(both_times, kind="stable")
        middle = Points(both_times[order], both_values[order])
    return Points(
        np.concatenate([old.times[:low], middle.times, old.times[high:]]),
        np.concatenate([old.values[:low], middle.values, old.values[high:]]),
    )


def _settle(old: Points, new: Points, policy: int) -> tuple[Points, Points]:
    """What stays of each, by the policy."""
    if policy == RETAIN:
        first = np.ones(len(new), bool)
        first[1:] = new.times[1:] != new.times[:-1]
        keep = first & ~np.isin(new.times, old.times)
        return old, Points(new.times[keep], new.values[keep])
    if policy == REPLACE:
        last = np.ones(len(new), bool)
        last[:-1] = new.times[1:] != new.times[:-1]
        stay = ~np.isin(old.times, new.times)
        return Points(old.times[stay], old.values[stay]), Points(new.times[last], new.values[last])
    if policy == EQUAL:
        suspect = np.isin(new.times, old.times)
        suspect[1:] |= new.times[1:] == new.times[:-1]
        if suspect.any():
            same = np.isin(old.times, new.times[suspect])
            seen = set(zip(old.times[same].tolist(), old.values[same].tolist(), strict=True))
            keep = np.ones(len(new), bool)
            for index in np.flatnonzero(np.isin(new.times, new.times[suspect])):
                point = (int(new.times[index]), float(new.values[index]))
                keep[index] = point not in seen
                seen.add(point)
            new = Points(new.times[keep], new.values[keep])
    return old, new


def without(old: Points, start: int, end: int) -> Points:
    """All points but those with start <= time < end."""
    low, high = np.searchsorted(old.times, [start, end], "left")
    return Points(np.delete(old.times, slice(low, high)), np.delete(old.values, slice(low, high)))


def snap(points: Points, start: int, end: int, period: int) -> Points:
    """The point nearest to each multiple of period (ns) with start <= multiple < end, at that multiple's time.

    A point halfway between two belongs to the later; of two as near the earlier is taken.
    """
    inside = points.between(start - (period - period // 2), end + period)
    grid = (inside.times + period // 2) // period * period
    held = (grid >= start) & (grid < end)
    grid, times, values = grid[held], inside.times[held], inside.values[held]
    order = np.lexsort((times, np.abs(times - grid), grid))
    grid, values = grid[order], values[order]
    first = np.ones(len(grid), bool)
    first[1:] = grid[1:] != grid[:-1]
    return Points(grid[first], values[first])
