"""Kill points: each is placed somewhere, and each kills its process there and nowhere else."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults import POINTS

ROOT = Path(__file__).resolve().parents[2]
STATIONS = ("ctingress", "dispatcher", "executor", "ledger", "notifier", "registry", "stream")


def passed_somewhere() -> set[str]:
    """The names given to point(...) in the stations' code."""
    found = set()
    for path in (path for station in STATIONS for path in (ROOT / station).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "point":
                assert isinstance(node.args[0], ast.Constant), path
                found.add(str(node.args[0].value))
    return found


def a_process(passes: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **{f"EVENTPROC_FAULTS{name}": value for name, value in settings.items()}}
    code = f"from faults import point\npoint({passes!r})\nprint('went on')"
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_point_is_placed_and_every_placed_point_has_a_name() -> None:
    assert passed_somewhere() == set(POINTS)


@pytest.mark.parametrize("name", POINTS)
def test_a_point_kills_the_process_and_says_so(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"

    done = a_process(name, _LOG=str(log), _NAME="one", **{"": "1"})

    assert done.returncode == -signal.SIGKILL
    assert log.read_text().split()[:2] == ["one", name]


def test_nothing_dies_when_faults_are_off_or_only_another_point_counts_or_their_file_is_gone(tmp_path: Path) -> None:
    assert a_process("run.after_end").stdout == "went on\n"
    assert a_process("run.after_end", _POINTS="run.before_start", **{"": "1"}).stdout == "went on\n"
    assert a_process("run.after_end", _POINTS="run.after_end=0", **{"": "1"}).stdout == "went on\n"
    assert a_process("run.after_end", _WHILE=str(tmp_path / "gone"), **{"": "1"}).stdout == "went on\n"


def test_a_name_that_is_no_point_is_named_with_those_there_are() -> None:
    done = a_process("run.after_end", _POINTS="run.after", **{"": "1"})

    assert "there is no run.after; there are ledger.before_commit" in done.stderr
