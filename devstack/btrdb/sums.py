"""Statistics that can be joined: of points, of windows, of whole leaves. Pure functions of numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from devstack.btrdb.points import Points, Values

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sums:
    """Groups of points, one row each; index, ascending, tells the group. spread: the sum of squared distances from the mean."""

    index: npt.NDArray[np.int64]
    count: Counts
    minimum: Values
    mean: Values
    maximum: Values
    spread: Values

    def at(self, rows: npt.NDArray[Any]) -> Sums:
        """Rows chosen by their places or by a mask."""
        return Sums(*(column[rows] for column in self.columns()))

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The six arrays, in the order of their declaration."""
        return (self.index, self.count, self.minimum, self.mean, self.maximum, self.spread)

    def __len__(self) -> int:
        return len(self.index)


def of_points(points: Points, index: npt.NDArray[np.int64]) -> Sums:
    """One row for each run of points with the same index."""
    if not len(points):
        return NONE
    firsts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    count = np.diff(np.r_[firsts, len(index)])
    values = points.values
    minimum, maximum = np.minimum.reduceat(values, firsts), np.maximum.reduceat(values, firsts)
    # rounding must not push a mean out of its own values
    mean = np.clip(np.add.reduceat(values, firsts) / count, minimum, maximum)
    spread = np.add.reduceat((values - np.repeat(mean, count)) ** 2, firsts)
    return Sums(index[firsts], count, minimum, mean, maximum, spread)


def join(parts: Sequence[Sums]) -> Sums:
    """All rows, in order, those of the same index made one (Chan, Golub, LeVeque: updating formulae for variances)."""
    rows = Sums(*(np.concatenate(columns) for columns in zip(*(part.columns() for part in parts), strict=True)))
    if not len(rows) or bool((rows.index[1:] != rows.index[:-1]).all()):
        return rows
    firsts = np.flatnonzero(np.r_[True, rows.index[1:] != rows.index[:-1]])
    lengths = np.diff(np.r_[firsts, len(rows)])
    count = np.add.reduceat(rows.count, firsts)
    minimum, maximum = np.minimum.reduceat(rows.minimum, firsts), np.maximum.reduceat(rows.maximum, firsts)
    mean = np.clip(np.add.reduceat(rows.mean * rows.count, firsts) / count, minimum, maximum)
    apart = rows.count * (rows.mean - np.repeat(mean, lengths)) ** 2
    return Sums(rows.index[firsts], count, minimum, mean, maximum, np.add.reduceat(rows.spread + apart, firsts))


NONE = Sums(np.empty(0, np.int64), np.empty(0, np.int64), *(np.empty(0, np.float64) for _ in range(4)))
