"""Commands about handlers that there are."""

from typing import Any, Optional

import click

from btrdbextras import eventproc
from btrdbextras.commands.show import Shared, as_json, command, handler_of, id_of
from btrdbextras.eventproc.rows import Handler


@command()
def hooks(shared: Shared) -> None:
    """List the hooks that functions can be registered for."""
    names = eventproc.hooks(shared.conn())
    shared.record(names, "\n".join(names))


@command()
@click.option("--hook", default="", help="Only handlers of this hook.")
def handlers(shared: Shared, hook: str) -> None:
    """List the registered handlers, everybody's."""
    found: Any = eventproc.list_handlers(shared.conn(), hook)
    shared.table(found, "no handlers")


@command()
@click.argument("handler", metavar="HANDLER")
def deregister(shared: Shared, handler: str) -> None:
    """Remove a handler: runs that have begun go on, those that wait are cancelled."""
    conn = shared.conn()
    found = id_of(conn, handler)
    eventproc.deregister(conn, found)
    shared.record({"id": found}, "removed handler %d" % found)


@command()
@click.argument("handler", metavar="HANDLER")
def pause(shared: Shared, handler: str) -> None:
    """Pause a handler: events that come meanwhile do not run it."""
    _tell(shared, eventproc.pause(shared.conn(), handler_of(handler)), "paused")


@command()
@click.argument("handler", metavar="HANDLER")
def resume(shared: Shared, handler: str) -> None:
    """End a handler's pause; `eventproc replay --only missing` runs it for what it has missed."""
    _tell(shared, eventproc.resume(shared.conn(), handler_of(handler)), "resumed")


@command()
@click.argument("handler", metavar="HANDLER")
def versions(shared: Shared, handler: str) -> None:
    """List a handler's versions, the newest first."""
    found: Any = eventproc.versions(shared.conn(), handler_of(handler))
    shared.table(found, "no versions")


@command()
@click.argument("handler", metavar="HANDLER")
@click.option("--version", type=click.IntRange(0), help="Default: the present one.")
def source(shared: Shared, handler: str, version: Optional[int]) -> None:
    """Print a handler's code as it was registered."""
    found = eventproc.source(shared.conn(), handler_of(handler), version)
    if not found.text:
        shared.note("version %d was registered without its source" % found.version)
    shared.record(found, found.text.rstrip("\n"))


@command()
@click.argument("handler", metavar="HANDLER")
@click.argument("version", type=click.IntRange(0))
def rollback(shared: Shared, handler: str, version: int) -> None:
    """Make a new version of what an old VERSION was; `eventproc versions` lists them."""
    made = eventproc.rollback(shared.conn(), handler_of(handler), version)
    _tell(shared, made, "is version %d now, which is what version %d was" % (made.version, version))


@command()
@click.argument("handler", metavar="HANDLER")
@click.option("--since", required=True, help="From when on: 2h, 30d, 2026-01-31, 2026-01-31T12:00:00Z.")
@click.option("--until", help="Before when. Default: now.")
@click.option("--only", type=click.Choice(["missing", "failed"]), help="Events without a run, or whose run failed.")
@click.option("--dry-run", is_flag=True, help="Only list what would run.")
@click.option("--replay-id", metavar="UUID", help="The same again makes no run twice. Default: a new one.")
def replay(
    shared: Shared, handler: str, since: str, until: Optional[str], only: Optional[str], dry_run: bool, replay_id: str
) -> None:
    """Run a handler, as it is now, for events of the past that its tags match."""
    found: Any = eventproc.replay(shared.conn(), handler_of(handler), since, until, dry_run, only, replay_id)
    shared.table(found, "no events to run")
    runs = "%d run%s" % (len(found), "" if len(found) == 1 else "s")
    shared.note("%s %s" % (runs, "would be made; nothing was" if dry_run else "made"))


@command()
def rekey(shared: Shared) -> None:
    """Have all your handlers run under $BTRDB_API_KEY from now on, without registering them anew."""
    count, resumed = eventproc.manage.sealed(shared.conn())
    shared.record({"handlers": count, "resumed": as_json(resumed)}, eventproc.manage.told(count, resumed))


def _tell(shared: Shared, handler: Handler, what: str) -> None:
    shared.record(handler, "handler %d (%s) %s" % (handler.id, handler.name, what))


COMMANDS = [hooks, handlers, deregister, pause, resume, versions, source, rollback, replay, rekey]
