"""The tables go back to an earlier release's only when it is meant, and come forward again."""

from __future__ import annotations

import json
from pathlib import Path

from ledger import Ledger
from tests.admin.conftest import call

LAST = str(json.loads((Path(__file__).parents[1] / "ledger" / "last_release.json").read_text())["revision"])


def test_the_tables_go_back_step_by_step_and_forward_again(ledger: Ledger) -> None:
    said = call("downgrade", LAST, "--yes")

    assert f"the tables are of revision {LAST} now" in said
    assert said.index("taken back 0021") < said.index("taken back 0020")
    assert f"of revision {LAST}" in ledger.unlike()
    ledger.migrate()
    assert ledger.unlike() == ""


def test_nothing_happens_unless_it_is_meant(ledger: Ledger) -> None:
    assert "make a backup" in call("downgrade", LAST, code=2)
    assert ledger.unlike() == ""


def test_a_revision_that_the_tables_have_not_passed_is_refused(ledger: Ledger) -> None:
    assert "'9999' is none of those that these tables have passed" in call("downgrade", "9999", "--yes", code=1)
    assert ledger.unlike() == ""
