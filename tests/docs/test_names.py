"""The pages name files that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/**/*.md")]
    if ".venv" not in page.parts
)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#]+)")
NAMED = re.compile(r"`([a-z_]+(?:/[\w.-]+)*/[\w.-]+\.(?:py|avsc|proto|md))`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_with_its_folder_exists(page: Path) -> None:
    named = NAMED.findall(page.read_text())

    missing = [name for name in named if not (ROOT / name).exists() and not (page.parent / name).exists()]

    assert missing == []


def test_every_file_that_the_road_names_without_its_folder_is_in_some_station() -> None:
    named = set(re.findall(r"`(\w+\.py)`", (ROOT / "docs" / "road.md").read_text()))
    stations = (
        "admin",
        "ctingress",
        "dispatcher",
        "downloads",
        "executor",
        "ledger",
        "notifier",
        "registry",
        "stream",
        "client",
    )
    there = {path.name for station in stations for path in (ROOT / station).glob("**/*.py")}

    assert named - there == set()
