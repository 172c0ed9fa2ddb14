"""eventproc-admin probe: what `helm test` calls, on a running stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.road.conftest import Road

pytestmark = pytest.mark.road
ROOT = Path(__file__).resolve().parents[2]


def probe(road: Road, folder: Path, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    layout = road.stack.layout
    (folder / "key").write_text(layout.api_keys["alice"] + "\n")
    env: Mapping[str, str] = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": road.stack.bootstrap,
        "PROBE_REGISTRY": layout.at("registry"),
        "PROBE_REGISTRY_CA": str(layout.certificates.ca),
        "PROBE_API_KEY_FILE": str(folder / "key"),
        **changed,
    }
    command = [sys.executable, "-m", "admin", "probe", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_probe_sees_its_run_succeed_and_leaves_no_handler(road: Road, tmp_path: Path) -> None:
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    before = {handler.id for handler in road.handlers()}

    done = probe(road, tmp_path, "--runtime", python)

    assert done.returncode == 0, done.stderr
    assert "has succeeded" in done.stdout
    assert {handler.id for handler in road.handlers()} == before


def test_a_probe_says_what_it_lacks(road: Road, tmp_path: Path) -> None:
    unknown = probe(road, tmp_path, "--runtime", "py2.7")
    assert unknown.returncode == 2
    assert "py2.7 has no handler for this; there are py3.6" in unknown.stderr

    nowhere = probe(road, tmp_path, PROBE_API_KEY_FILE=str(tmp_path / "none"))
    assert nowhere.returncode == 2
    assert "cannot be read" in nowhere.stderr

    (tmp_path / "wrong").write_text("F" * 40)
    stranger = probe(road, tmp_path, PROBE_API_KEY_FILE=str(tmp_path / "wrong"))
    assert stranger.returncode == 1
    assert "UNAUTHENTICATED" in stranger.stderr
