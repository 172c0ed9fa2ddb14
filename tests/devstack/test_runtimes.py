"""Runtimes are files in a folder; what is built is found again."""

import shutil
import sys
from pathlib import Path

import pytest

from devstack import runtimes
from executor.sandbox.job import MIB, Access, Runtime
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome
from tests.executor.sandbox.conftest import make_job

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def add(folder: Path, name: str, python: str, pins: str = "", packages: str = "dill") -> Path:
    """A runtime's file."""
    file = folder / f"{name}.txt"
    file.write_text(f"# python: {python}\n# packages: {packages}\n{pins}")
    return file


def pin_of(package: str) -> str:
    """A package's lines in the list of this Python, with its hashes."""
    lines, taken = (runtimes.LISTS / f"py{OWN}.txt").read_text().splitlines(keepends=True), ""
    for number, line in enumerate(lines):
        if line.startswith(f"{package}=="):
            taken = line
            for more in lines[number + 1 :]:
                if not taken.endswith("\\\n"):
                    break
                taken += more
    return taken


def test_every_python_from_3_6_on_has_a_core_list_and_3_7_and_the_two_newest_a_full_one() -> None:
    core = [one.minor for one in runtimes.listed() if not one.full]
    full = {one.minor: set(one.wants) for one in runtimes.listed() if one.full}

    assert core[:8] == ["3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"]
    assert set(full) == {"3.7", *core[-2:]}
    for wants in full.values():
        assert wants >= {"matplotlib", "numpy", "pandas", "ray", "scikit-learn", "scipy", "statsmodels", "tensorflow"}
        assert wants >= {"torch", "torchvision"}


@pytest.mark.parametrize("one", runtimes.listed(), ids=lambda one: one.file.stem)
def test_every_list_pins_all_that_it_asks_for_with_hashes_and_names_no_index(one: runtimes.Listed) -> None:
    text = one.file.read_text()
    pinned = runtimes.pinned(text)

    assert {want.split("[")[0].split("=")[0].split("<")[0] for want in one.wants} <= set(pinned)
    assert all("--hash=sha256:" in lines for lines in pinned.values())
    assert "index-url" not in text and "://" not in text


@pytest.mark.slow
def test_a_newer_python_is_added_by_adding_one_file(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    shutil.copytree(runtimes.LISTS, lists)
    add(lists, "py3.14", "3.14", pin_of("pip") + pin_of("dill"))

    # any interpreter will do to show that the file is all that it takes
    built = runtimes.build(
        lambda text: None, ["py3.14"], False, lists, tmp_path / "built", {"3.14": Path(sys.executable)}
    )
    runtime = SandboxedRuntime(Runtime("py3.14", built["py3.14"]), Access(None), warm=0, scratch_bytes=64 * MIB)
    runtime.start()
    try:
        ended = runtime.run(make_job(lambda **kwargs: __import__("sys").prefix))
    finally:
        runtime.close()

    assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, str(tmp_path / "built" / "py3.14"))


@pytest.mark.slow
def test_what_is_built_is_left_alone_until_its_list_changes(tmp_path: Path) -> None:
    said: list[str] = []
    lists, pythons = tmp_path / "lists", {"3.14": Path(sys.executable)}
    lists.mkdir()
    file = add(lists, "py3.14", "3.14", pin_of("pip"))
    for _ in range(2):
        runtimes.build(said.append, (), False, lists, tmp_path / "built", pythons)
    assert said[-1] == "built already: py3.14"

    stamp = tmp_path / "built" / "py3.14" / ".built"
    stamp.write_text(stamp.read_text().splitlines()[0] + "\nanother client\n")
    runtimes.build(said.append, (), False, lists, tmp_path / "built", pythons)
    assert said[-2] == "py3.14: our client has changed"

    file.write_text(file.read_text() + "# changed\n")
    runtimes.build(said.append, (), False, lists, tmp_path / "built", pythons)
    assert said[-1].startswith("py3.14: built in")


def test_a_python_that_is_not_here_is_left_out_and_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    add(tmp_path, "py3.14", "3.14")

    assert runtimes.build(said.append, (), False, tmp_path, tmp_path / "built", {}) == {}
    assert said == ["py3.14: left out, this machine has no Python 3.14"]
    with pytest.raises(runtimes.BuildFailed, match=r"no runtime py2\.7; there are py3\.14"):
        runtimes.build(said.append, ["py2.7"], False, tmp_path, tmp_path / "built", {})


@pytest.mark.slow
def test_a_runtime_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    add(tmp_path, "py3.14", "3.14", "dill==0.4.1 --hash=sha256:" + "0" * 64 + "\n")

    with pytest.raises(runtimes.BuildFailed, match=r"py3\.14 could not be built"):
        runtimes.build(lambda text: None, (), False, tmp_path, tmp_path / "built", {"3.14": Path(sys.executable)})


def test_a_file_that_is_no_list_is_told_what_it_should_look_like(tmp_path: Path) -> None:
    (tmp_path / "python4.txt").write_text("numpy\n")

    with pytest.raises(ValueError, match=r"named like py3\.14\.txt"):
        runtimes.listed(tmp_path)
