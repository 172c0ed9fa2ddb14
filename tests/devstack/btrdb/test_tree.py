"""A stream's leaves and their statistics against the same questions asked of plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from devstack.btrdb import streams, tree
from devstack.btrdb.points import (
    EMPTY,
    EQUAL,
    MAXIMUM_TIME,
    MINIMUM_TIME,
    NEVER,
    REPLACE,
    RETAIN,
    Points,
    WindowStats,
    merge,
    without,
)
from devstack.btrdb.store import Store

UUID = "5b7ac5f9-3a2a-4a7c-9c2f-0d3f2f2f7a11"
STEP = 1_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose leaves are small, so that a few thousand points make many."""
    monkeypatch.setattr(tree, "LEAF", 256)
    monkeypatch.setattr("devstack.btrdb.store.LEAF", 256)
    store = Store(tmp_path)
    streams.create(store, UUID, "c", {"name": "n"}, {})
    yield store
    store.close()


def brute_windows(points: Points, index_of: Callable[[int], int]) -> list[tuple[int, float, float, float, int, float]]:
    """(index, min, mean, max, count, standard deviation) of each window, one by one."""
    found: dict[int, list[float]] = {}
    for time, value in zip(points.times.tolist(), points.values.tolist(), strict=True):
        found.setdefault(index_of(time), []).append(value)
    return [(i, min(v), float(np.mean(v)), max(v), len(v), float(np.std(v))) for i, v in sorted(found.items())]


def rows(stats: WindowStats) -> list[tuple[int, float, float, float, int, float]]:
    columns = (stats.times, stats.minimum, stats.mean, stats.maximum, stats.count, stats.stddev)
    return [(t, a, b, c, int(n), s) for t, a, b, c, n, s in zip(*(column.tolist() for column in columns), strict=True)]


def assert_alike(found: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> None:
    """The same times and counts to the last digit, the rest as near as another order of summing is."""
    assert [(row[0], row[4]) for row in found] == [(row[0], row[4]) for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert list(one[1:]) == pytest.approx(list(other[1:]), rel=1e-9, abs=1e-9)


def changed_at_random(store: Store, seed: int, changes: int) -> list[Points]:
    """Makes random changes; returns what each version from the first holds, folded over plain arrays."""
    draw = np.random.default_rng(seed)
    versions = [EMPTY]
    for _ in range(changes):
        size = int(draw.choice([1, 3, 40, 900]))
        start = int(draw.integers(0, 4_000)) * STEP
        if draw.random() < 0.15:
            end = start + int(draw.integers(0, 800)) * STEP
            store.delete(UUID, start, end)
            versions.append(without(versions[-1], start, end))
            continue
        times = start + draw.integers(0, size * 2, size) * STEP
        new = Points(times.astype(np.int64), draw.integers(-5, 5, size).astype(np.float64))
        policy = int(draw.choice([NEVER, EQUAL, RETAIN, REPLACE]))
        store.insert(UUID, new, policy)
        versions.append(merge(versions[-1], new, policy))
    return versions


@pytest.mark.parametrize("seed", range(6))
def test_every_version_reads_as_plain_arrays_would(store: Store, seed: int) -> None:
    versions = changed_at_random(store, seed, 60)
    store.forget()
    for number, wanted in enumerate(versions):
        view, version = store.at(UUID, 10 + number)
        found = view.between(MINIMUM_TIME, MAXIMUM_TIME + 1)
        assert version == 10 + number
        assert found.times.tolist() == wanted.times.tolist()
        assert found.values.tolist() == wanted.values.tolist()
        assert len(view) == len(wanted)


@pytest.mark.parametrize("seed", range(6))
def test_windows_agree_with_each_windows_own_points(store: Store, seed: int) -> None:
    points = changed_at_random(store, seed, 40)[-1]
    view, _ = store.at(UUID)
    draw = np.random.default_rng(seed)
    for _ in range(60):
        start, end = sorted(int(t) for t in draw.integers(-500 * STEP, 6_000 * STEP, 2))
        width = int(draw.integers(1, 2_000 * STEP))
        whole = start + (end - start) // width * width
        wanted = brute_windows(points.between(start, whole), lambda t, s=start, w=width: (t - s) // w)  # type: ignore[misc]
        wanted = [(start + row[0] * width, *row[1:]) for row in wanted]
        found = rows(view.windows(start, end, width))
        assert_alike(found, wanted)


@pytest.mark.parametrize("pointwidth", [0, 5, 10, 14, 16, 18, 20, 24, 40, 62, 63])
def test_aligned_windows_agree_with_each_windows_own_points(store: Store, pointwidth: int) -> None:
    points = changed_at_random(store, pointwidth, 40)[-1]
    view, _ = store.at(UUID)
    for start, end in ((0, 5_000 * STEP), (777 * STEP, 3_333 * STEP), (MINIMUM_TIME, MAXIMUM_TIME)):
        low, high = start >> pointwidth << pointwidth, end >> pointwidth << pointwidth
        wanted = brute_windows(points.between(low, high), lambda t: t >> pointwidth)
        found = rows(view.aligned_windows(start, end, pointwidth))
        assert_alike(found, [(index << pointwidth, *row) for index, *row in wanted])


def test_the_nearest_point_is_found_in_any_leaf_and_between_leaves(store: Store) -> None:
    points = changed_at_random(store, 3, 40)[-1]
    view, _ = store.at(UUID)
    for time in range(-STEP, 6_000 * STEP, 377 * STEP // 10):
        after = int(np.searchsorted(points.times, time, "left"))
        wanted = int(points.times[after]) if after < len(points) else None
        assert (view.nearest(time, False) or (None,))[0] == wanted
        assert (view.nearest(time, True) or (None,))[0] == (int(points.times[after - 1]) if after else None)


def test_points_one_by_one_leave_few_leaves(store: Store) -> None:
    for number in range(2_000):
        store.insert(UUID, Points(np.array([number * STEP]), np.array([1.0])), NEVER)
    assert len(store.at(UUID)[0].leaves) < 25


def test_the_same_points_again_make_a_version_and_no_leaf(store: Store) -> None:
    new = Points(np.arange(1_000) * STEP, np.ones(1_000))
    first = store.insert(UUID, new, RETAIN)
    leaves = store.at(UUID)[0].leaves
    again = store.insert(UUID, new, RETAIN)
    assert again == first + 1
    assert store.at(UUID)[0].leaves == leaves


def test_wide_windows_are_answered_without_reading_points(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.insert(UUID, Points(np.arange(20_000) * STEP, np.arange(20_000.0)), NEVER)
    view, _ = store.at(UUID)
    read: list[int] = []
    points = store.points
    monkeypatch.setattr(store, "points", lambda leaf: read.append(leaf.number) or points(leaf))  # type: ignore[func-returns-value]
    found = view.aligned_windows(0, 1 << 40, 22)
    assert int(found.count.sum()) == 20_000
    assert read == []


def test_data_of_another_layout_is_not_taken_for_none(store: Store, tmp_path: Path) -> None:
    store.sql.execute("PRAGMA user_version = 1")
    with pytest.raises(RuntimeError, match="layout 1, this server reads 2"):
        Store(tmp_path)
