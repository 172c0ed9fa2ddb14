"""Commands about what happened."""

from typing import Any, Optional

import click

from btrdbextras import eventproc
from btrdbextras.commands.show import Shared, clean, command, handler_of, run_of
from btrdbextras.eventproc import look


@command()
@click.option("--handler", metavar="HANDLER", help="Only of this handler: its id or name.")
@click.option("--hook", help="Only of this hook's handlers.")
@click.option("--state", type=click.Choice(look.STATES), help="Only in this state.")
@click.option("--since", help="Only queued since: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@click.option("--owner", help="Only of this user's handlers; for admins.")
def runs(
    shared: Shared,
    handler: Optional[str],
    hook: Optional[str],
    state: Optional[str],
    since: Optional[str],
    limit: int,
    owner: Optional[str],
) -> None:
    """List your runs, the newest first; an admin sees everybody's."""
    wanted = None if handler is None else handler_of(handler)
    found: Any = eventproc.runs(shared.conn(), wanted, hook, state, since, limit, owner)
    shared.table(found, "no runs")


@command()
@click.argument("run", metavar="RUN")
def run(shared: Shared, run: str) -> None:
    """Show all that is known of a run: what it returned, raised and printed, its times and files."""
    conn = shared.conn()
    found = eventproc.run(conn, run_of(conn, run))
    shared.record(found, repr(found))


@command()
@click.argument("run", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
def logs(shared: Shared, run: str, follow: bool) -> None:
    """Print what a run has printed."""
    conn = shared.conn()
    found = run_of(conn, run)
    pieces = look.follow(conn, found) if follow else look.printed(conn, found)
    if shared.as_json:
        return shared.json({"id": found, "log": "".join(pieces)})
    for piece in pieces:
        click.echo(clean(piece), nl=False)
    return None


COMMANDS = [runs, run, logs]
