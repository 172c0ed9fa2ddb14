"""What is kept, how much room it takes, and what is too old; removes that now instead of within the hour."""

from __future__ import annotations

from typing import Annotated

import typer

from admin import desk
from admin.say import as_json, fail, out, table
from ledger.audit import LEDGER, Act, note
from ledger.retain import KINDS, remove_some, too_old
from ledger.settings import KeepSettings
from ledger.sizes import sizes
from telemetry.settings import from_environment

BATCH = 500


def retain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what is too old, remove nothing")] = False,
    only: Annotated[str, typer.Option(help=f"one kind: {', '.join(KINDS)}")] = "",
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Removes what is older than EVENTPROC_KEEP_*_DAYS, as a dispatcher does each hour; tells what room the rest takes."""
    if only and only not in KINDS:
        raise fail(f"--only: {only!r} is none of {', '.join(KINDS)}", 2)
    rules = from_environment(KeepSettings).rules()
    kinds = (only,) if only else KINDS
    done = dict.fromkeys(kinds, 0)
    with desk.ledger() as ledger:
        if dry_run:
            with ledger.read() as session:
                done = {kind: count for kind, count in too_old(session, rules).items() if kind in kinds}
        for kind in () if dry_run else kinds:
            count = BATCH
            while count == BATCH:
                with ledger.write() as session:
                    count = remove_some(session, kind, rules, BATCH)
                done[kind] += count
        if any(done.values()) and not dry_run:
            with ledger.write() as session:
                note(session, desk.operator(), Act.RETAIN, LEDGER, "old", **done)
        with ledger.read() as session:
            kept = sizes(session)
    if json:
        as_json({"dry_run": dry_run, "removed": done, "kept_bytes": kept})
        return
    table("Too old" if dry_run else "Removed", ("kind", "count"), list(done.items()))
    table("\nKept", ("kind", "bytes"), list(kept.items()))
    if dry_run:
        out.print("\nAn event goes once its runs have gone, a run once its email has been sent or given up.")
