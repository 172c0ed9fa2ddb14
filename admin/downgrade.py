"""The ledger's tables back to those of an earlier release."""

from __future__ import annotations

from typing import Annotated

import typer

from admin import desk
from admin.say import fail, out
from admin.settings import AdminSettings
from telemetry.settings import from_environment


def downgrade(
    revision: Annotated[str, typer.Argument(help="of the earlier release: the last of its ledger/migrations/versions")],
    yes: Annotated[
        bool, typer.Option("--yes", help="no station of a later release runs, and there is a backup")
    ] = False,
) -> None:
    """Takes the ledger's tables back to an earlier revision. What later ones have noted is dropped."""
    if not yes:
        raise fail("what later releases have noted is dropped. Stop their stations, make a backup, then say --yes", 2)
    with desk.any_ledger(from_environment(AdminSettings).ledger_url) as ledger:
        try:
            steps = ledger.migrate_back(revision)
        except ValueError as error:
            raise fail(str(error)) from None
    for step in steps:
        out.print(f"taken back {step}", markup=False)
    out.print(f"the tables are of revision {revision} now")
