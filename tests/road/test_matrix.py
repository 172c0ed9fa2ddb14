"""The client on every Python that is here, with the oldest and the newest of what it needs: from there to its email."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from devstack import runtimes
from schemas.records import Outcome

pytestmark = [pytest.mark.road, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).with_name("matrix")
KEPT = ROOT / ".cache" / "client-matrix"
AT_ONCE = 2


def _installed(name: str, wanted: Path) -> Path:
    """The list's packages in a folder of their own, which goes before the runtime's packages. Kept while the list is the same."""
    folder = (
        KEPT / wanted.stem / "site-packages"
    )  # by that name the client knows that these are not the user's own files
    stamp = folder / ".installed"
    if not (stamp.exists() and stamp.read_text() == wanted.read_text()):
        subprocess.run(
            [runtimes.built()[name], "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", "--upgrade",
             "--only-binary", ":all:", "--no-deps", "--require-hashes", "--target", folder, "-r", wanted],
            check=True, timeout=280,
        )  # fmt: skip
        stamp.write_text(wanted.read_text())
    return folder


@pytest.fixture(scope="module")
def environments() -> Iterator[dict[str, tuple[Path, Path]]]:
    """'py3.6-oldest' -> its interpreter and the folder that goes before what that has."""
    lists = [(wanted.stem.partition("-")[0], wanted) for wanted in sorted(LISTS.glob("*.txt"))]
    here = [(name, wanted) for name, wanted in lists if name in runtimes.built()]
    if not here:
        pytest.skip("no runtime is built here; `make runtimes` builds one for each Python")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        folders = list(pool.map(lambda one: _installed(*one), here))
    yield {wanted.stem: (runtimes.built()[name], folder) for (name, wanted), folder in zip(here, folders, strict=True)}


def _run(python: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'client'}", "PYTHONWARNINGS": "ignore"}
    command = [str(word) for word in (python, *words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_handler_registered_with_any_versions_runs_on_its_python_and_its_email_arrives(
    road: Any, environments: dict[str, tuple[Path, Path]]
) -> None:
    tag = f"matrix-{uuid.uuid4().hex[:8]}"

    def register(one: tuple[str, tuple[Path, Path]]) -> tuple[str, str]:
        name, (python, folder) = one
        done = _run(python, folder, LISTS / "register_with.py", name, tag, f"{name}@example.com")
        return name, "" if done.returncode == 0 else done.stderr[-2000:]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = {name: error for name, error in pool.map(register, environments.items()) if error}
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())
    request_id = road.publish([tag])
    ended = {run.handler_name: run for run in road.ended(request_id, len(environments))}

    for name in environments:
        run = ended[name]
        python = name.partition("-")[0]
        assert (run.state, run.text) == (Outcome.SUCCEEDED, f"{python} 5 2: RequestID SubmittedAt"), run.error
        assert run.log == "looking at by-hand.zip\n"
        assert f"[eventproc] {name} succeeded on by-hand.zip" in road.mail_to(f"{name}@example.com")["Subject"]


def test_the_command_line_answers_on_every_python(environments: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def mine(File, **kwargs):\n    return File\n")
    for name, (python, folder) in environments.items():
        tried = _run(python, folder, "-m", "btrdbextras", "try", f"{tmp_path / 'mine.py'}:mine")
        assert (tried.returncode, tried.stderr) == (0, ""), name
        assert "sample.zip" in tried.stdout
        wrong = _run(python, folder, "-m", "btrdbextras", "--endpoint", "127.0.0.1:9", "hooks", "--json")
        assert wrong.returncode in (3, 4), (name, wrong.stderr)
        helped = _run(python, folder, "-m", "btrdbextras")
        assert helped.returncode == 0 and "Exit codes:" in helped.stdout
