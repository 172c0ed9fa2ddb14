"""make chaos, as people run it: a short one each time, a long one in make test-all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNS = 2000


def chaos(*options: str, patience_s: float) -> tuple[int, dict[str, int], str]:
    """Its exit code, the counts of its last line, and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience_s,
        check=False,
    )
    last = done.stdout.rstrip().splitlines()[-1]
    return done.returncode, {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", last)}, done.stdout


def check(code: int, counts: dict[str, int], said: str) -> None:
    assert list(counts) == ["events", "runs", "terminal", "emails", "lost", "doubled"], said
    assert (code, counts["lost"], counts["doubled"]) == (0, 0, 0), said
    assert counts["terminal"] == counts["runs"] > counts["events"] > 0, said
    assert counts["emails"] > 0, said


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_while_processes_are_killed_and_stopped() -> None:
    check(*chaos("--duration", "12", "--seed", "7", "--ahead", "80", "--executors", "2", patience_s=580))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_is_lost_or_doubled_in_thousands_of_runs_though_each_process_is_killed() -> None:
    load = ("--duration", "120", "--runs", str(RUNS), "--ahead", "200", "--settle", "600")
    code, counts, said = chaos(*load, "--seed", "4", "--pause", "3.5", "--chance", "0.0002", patience_s=1450)
    check(code, counts, said)
    assert counts["runs"] >= RUNS, said
    killed = dict(re.findall(r"([\w-]+) (\d+)", re.search(r"killed with -9: (.*)", said)[1]))  # type: ignore[index]
    assert set(killed) == set(re.search(r"processes are up after \d+ s: (.*)", said)[1].split(", ")), said  # type: ignore[index]
