"""The installer, where an earlier one has ended half-way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

INSTALL = Path(__file__).resolve().parents[2] / "devstack" / "install"


@pytest.mark.slow
def test_an_environment_without_pip_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "all.txt").write_text("# nothing==0\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "half"], check=True)
    python = tmp_path / "half" / "bin" / "python"
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode != 0, (
        "as Debian leaves it"
    )

    ended = subprocess.run(
        [INSTALL, "half"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )

    assert "client/ could not be installed" in ended.stderr, "there is none here: all before it went well"
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
