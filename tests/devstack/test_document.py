"""The pages of docs/ that are written by make docs are what the code says now."""

from __future__ import annotations

import pytest

from btrdbextras import eventproc
from devstack import document


@pytest.mark.parametrize("name", document.PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    written = (document.DOCS / name).read_text()

    assert written == document.PAGES[name](), f"docs/{name} is not what the code says: run make docs"


def test_every_name_that_is_offered_is_described() -> None:
    page = document.api()

    for name in eventproc.__all__:
        if not name.startswith("_"):
            assert f"\n### {name}\n" in page
            assert (getattr(eventproc, name).__doc__ or "").strip(), f"{name} has no docstring"


def test_parameters_and_examples_are_markdown() -> None:
    page = document.api()

    assert "register(conn, name, hook, notify_on_success, notify_on_failure, tags=None, requirements=None," in page
    assert "- `tags`: *list of str, optional*\n  The function runs at events" in page
    assert "```python\n>>> runs(conn, 'peaks', state='failed', since='7d')\n```" in page
