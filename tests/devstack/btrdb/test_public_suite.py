"""The integration suite in the public client's own wheel, run as it is against the development server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import btrdb
import pytest

SUITE = Path(btrdb.__file__).parent.parent / "tests" / "btrdb_integration"


@pytest.mark.skipif(not SUITE.exists(), reason="this wheel of btrdb does not carry its integration suite")
def test_the_public_clients_own_suite_passes(running: Any, tmp_path: Path) -> None:
    suite = tmp_path / "btrdb_integration"  # beside the wheel's other tests it would shadow btrdb itself
    shutil.copytree(SUITE, suite)
    home = tmp_path / "home"
    (home / ".predictivegrid").mkdir(parents=True)
    (home / ".predictivegrid" / "credentials.yaml").write_text(
        f"dev:\n  name: dev\n  btrdb:\n    endpoints: '{running.endpoint}'\n    api_key: '{running.key}'\n"
    )
    without_polars = [] if importlib.util.find_spec("polars") else ["-k", "not polars"]
    where = ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path), str(suite)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *where, *without_polars],
        env={**os.environ, "HOME": str(home), "BTRDB_INTEGRATION_TEST_PROFILE": "dev"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " skipped" not in done.stdout.splitlines()[-1]
