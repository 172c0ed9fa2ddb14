"""One version for stations, images, chart and client; a release gives it to all of them, and keeps the wire for the next."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path

import pytest

from deploy.release import NotReleased, present, release, versions

ROOT = Path(__file__).resolve().parents[2]
DAY = datetime.date(2026, 12, 1)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A work tree of its own with this project's places, committed, with something to release."""
    root = tmp_path / "clone"
    for place in {name.split()[0] for name in versions(ROOT)} | {"CHANGELOG.md"}:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text((ROOT / place).read_text())
    protos = root / "schemas" / "proto"
    protos.mkdir(parents=True)
    for proto in (ROOT / "schemas" / "proto").glob("*.proto"):
        (protos / proto.name).write_bytes(proto.read_bytes())
    text = (root / "CHANGELOG.md").read_text()
    (root / "CHANGELOG.md").write_text(text.replace("## Unreleased\n", "## Unreleased\n\n- Something new.\n", 1))
    git(root, "init", "-q")
    for name, value in (("user.name", "alice"), ("user.email", "alice@example.com")):
        git(root, "config", name, value)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Before")
    return root


def test_the_places_that_name_a_version_name_the_same() -> None:
    assert len(versions(ROOT)) >= 3
    assert set(versions(ROOT).values()) == {present(ROOT)}


def test_a_release_gives_its_version_to_every_place_and_is_tagged(clone: Path) -> None:
    release(clone, "97.1.0", DAY)

    assert set(versions(clone).values()) == {"97.1.0"}
    assert versions(clone).keys() == versions(ROOT).keys()
    assert "## Unreleased\n\n## 97.1.0 (2026-12-01)\n\n- Something new." in (clone / "CHANGELOG.md").read_text()
    assert git(clone, "describe", "--exact-match").strip() == "v97.1.0"
    assert git(clone, "status", "--porcelain") == ""


def test_a_release_keeps_the_wire_as_it_is(clone: Path) -> None:
    release(clone, "97.1.0", DAY)

    kept = clone / "schemas" / "history" / "proto" / "1" / "executorapi.proto"
    assert kept.read_bytes() == (ROOT / "schemas" / "proto" / "executorapi.proto").read_bytes()
    written = {path.stem for path in (clone / "tests" / "schemas" / "last_release").glob("*.json")}
    assert {"ctingress.on_complete", "task", "result", "dead_letter"} <= written
    result = json.loads((clone / "tests" / "schemas" / "last_release" / "result.json").read_text())
    assert result["means"]["error"]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("97.1", "is no version"),
        ("0.0.1", "is lower than"),
    ],
)
def test_a_wrong_version_is_refused_and_nothing_changes(clone: Path, version: str, why: str) -> None:
    with pytest.raises(NotReleased, match=why):
        release(clone, version, DAY)

    assert git(clone, "status", "--porcelain") == ""


def test_what_is_not_committed_is_not_released(clone: Path) -> None:
    (clone / "pyproject.toml").write_text((clone / "pyproject.toml").read_text() + "# more\n")

    with pytest.raises(NotReleased, match="not committed"):
        release(clone, "97.1.0", DAY)


def test_the_same_version_is_released_once_and_only_with_something_new(clone: Path) -> None:
    release(clone, "97.1.0", DAY)

    with pytest.raises(NotReleased, match=r"v97\.1\.0 was released before"):
        release(clone, "97.1.0", DAY)
    with pytest.raises(NotReleased, match="nothing under '## Unreleased'"):
        release(clone, "97.2.0", DAY)


def test_places_that_differ_are_named(clone: Path) -> None:
    setup = clone / "client" / "setup.cfg"
    setup.write_text(setup.read_text().replace(f"version = {present(ROOT)}", "version = 1.2.3"))
    git(clone, "commit", "-q", "-am", "Another")

    with pytest.raises(NotReleased, match=r"client/setup\.cfg 1\.2\.3"):
        release(clone, "97.1.0", DAY)
