"""The arithmetic of docs/sizing.md, and the counters that it stands on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.costs import Cost, Meter
from bench.predict import Costs, need
from ledger import Ledger

COSTS = Costs(
    archive=Cost(cpu_s={"ctingress": 1.0}, rows=3, commits=5, wal_bytes=1000, kafka_bytes=4000),
    event=Cost(cpu_s={"dispatcher": 0.001}, rows=1, commits=0.1, wal_bytes=500),
    run=Cost(
        cpu_s={"executor": 0.02, "registry": 0.01}, rows=6, commits=4, wal_bytes=3000, kafka_bytes=500, kept_bytes=1000
    ),
    email=Cost(cpu_s={"notifier": 0.005}, rows=4, commits=2, wal_bytes=1000),
)


def test_a_storm_needs_the_sum_of_what_its_parts_cost() -> None:
    found = need(COSTS, 3600, runs=10)

    assert found.cores == pytest.approx(
        {"ctingress": 1.0, "dispatcher": 0.001, "executor": 0.2, "registry": 0.1, "notifier": 0.05}
    )
    assert found.runs_per_s == 10
    assert (found.rows_per_s, found.commits_per_s) == pytest.approx((104, 65.1))
    assert found.kept_gb_per_day == pytest.approx(0.864)
    assert (found.wal_mb_per_s, found.kafka_mb_per_s) == pytest.approx((0.0415, 0.009))


def test_it_grows_with_the_rate_and_no_process_is_busier_than_it_should_be() -> None:
    found = need(COSTS, 36_000, runs=10)

    assert found.cores["ctingress"] == pytest.approx(10.0)
    assert found.processes == {"ctingress": 15, "dispatcher": 1, "registry": 2, "notifier": 1}


def test_what_is_less_than_the_noise_costs_nothing() -> None:
    assert COSTS.event.without(COSTS.run).cpu_s == {"dispatcher": 0.001, "executor": 0.0, "registry": 0.0}


@pytest.fixture
def meter(postgresql_url: str, tmp_path: Path) -> Callable[[], Meter]:
    opened = Ledger.open(postgresql_url)
    opened.migrate()
    return lambda: Meter({"me": os.getpid()}, tmp_path, opened)


def test_work_of_descendants_counts_also_when_they_have_ended(meter: Callable[[], Meter], tmp_path: Path) -> None:
    one = meter()
    before = one.read()
    spends = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spends!r}])"],
        check=True,
    )
    (tmp_path / "topic-0").mkdir()
    (tmp_path / "topic-0" / "0.log").write_bytes(b"x" * 100)

    cost = Cost.between(before, one.read())

    assert cost.cpu_s["me"] >= 0.5
    assert cost.kafka_bytes == 100
