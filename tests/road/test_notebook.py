"""The notebook of a user's first five minutes runs as it is, on the stack, to its email."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.road

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_email.ipynb"


def said(cell: Any) -> str:
    """What a cell printed and showed."""
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
    return "".join(parts)


def test_the_first_five_minutes_end_with_an_email(road: Any) -> None:
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]

    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    told = [said(cell) for cell in cells]
    assert told[0] == "['ctingress.on_complete']"
    assert "largest_current succeeded" in told[2]
    assert told[3].startswith("registered 'largest current' version 0")
    assert "fault.zip: published" in told[4]
    assert "samples" in told[5]
    assert "succeeded" in told[6] and "IA: " in told[6]
    assert "<table>" in cells[7]["outputs"][0]["data"]["text/html"]
    assert "[eventproc] largest current succeeded on fault.zip" in told[8]
    assert told[9] == "True"
