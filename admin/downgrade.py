"""The ledger's tables back to those of an earlier release."""

from __future__ import annotations

from typing import Annotated

import typer

from admin.say import fail, out
from admin.settings import AdminSettings
from ledger import Ledger
from schemas.errors import TryLater
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
    ledger = Ledger.open(from_environment(AdminSettings).ledger_url)
    try:
        steps = ledger.migrate_back(revision)
    except ValueError as error:
        raise fail(str(error)) from None
    except TryLater as error:
        raise fail(error.reason, 75) from None
    finally:
        ledger.close()
    for step in steps:
        out.print(f"taken back {step}", markup=False)
    out.print(f"the tables are of revision {revision} now")
