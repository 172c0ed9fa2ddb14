"""A user's handlers, as an operator sees to them: when somebody leaves, or is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from admin import desk
from admin.say import as_json, fail, moment, out, table
from ledger import leaving
from ledger.audit import HANDLER, OWNER, Act, note
from ledger.handlers import HandlerView, list_handlers
from ledger.versions import WaitsForKey, set_paused

app = typer.Typer(no_args_is_help=True, help="A user's handlers: to look at, give to another, pause, remove.")

Owner = Annotated[str, typer.Option(help="whose")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say which, change nothing")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table")]


@app.command("list")
def list_(owner: Annotated[str, typer.Option(help="only this user's")] = "", json: Json = False) -> None:
    """Lists the living handlers."""
    with desk.ledger() as ledger, ledger.read() as session:
        found = list_handlers(session, owner=owner or None)
    _show(f"Handlers of {owner}" if owner else "Handlers", found, json)


@app.command()
def transfer(
    owner: Owner, to: Annotated[str, typer.Option(help="to whom; has to have a sealed key")],
    dry_run: DryRun = False, json: Json = False,
) -> None:  # fmt: skip
    """Gives all handlers of a user, and their runs that wait, to another: they run under that one's key from now on."""
    if owner == to:
        raise fail("--owner and --to are the same", desk.CALLED_WRONGLY)
    with desk.ledger() as ledger, ledger.write() as session:
        try:
            leaving.check_key(session, to)
            mine = list_handlers(session, owner=owner)
            changed = mine if dry_run else leaving.transfer(session, owner, to, _who())
            if not dry_run:
                _note(session, Act.TRANSFER, changed, of=owner, to=to)
        except leaving.NoKey as error:
            raise fail(str(error)) from error
    _done(f"{'Would go' if dry_run else 'Gone'} from {owner} to {to}", changed, owner, json)


@app.command()
def pause(owner: Owner, dry_run: DryRun = False, json: Json = False) -> None:
    """Pauses all handlers of a user: no event meets them until they are resumed; runs that wait go on."""
    _set_paused(owner, True, dry_run, json)


@app.command()
def resume(owner: Owner, dry_run: DryRun = False, json: Json = False) -> None:
    """Resumes all paused handlers of a user, but those that wait for a new key."""
    _set_paused(owner, False, dry_run, json)


@app.command()
def purge(owner: Owner, dry_run: DryRun = False, json: Json = False) -> None:
    """Removes all handlers of a user, cancels their runs that wait, and forgets the sealed key."""
    with desk.ledger() as ledger, ledger.write() as session:
        changed = list_handlers(session, owner=owner) if dry_run else leaving.purge(session, owner, _who())
        if not dry_run:
            _note(session, Act.REMOVE, changed, owner=owner)
            note(session, desk.operator(), Act.PURGE, OWNER, owner, handlers=len(changed))
    _done("Would be removed" if dry_run else "Removed", changed, owner, json)


def _set_paused(owner: str, paused: bool, dry_run: bool, json: bool) -> None:
    with desk.ledger() as ledger, ledger.write() as session:
        changed = [view for view in list_handlers(session, owner=owner) if view.paused != paused]
        if not dry_run:
            try:
                changed = [set_paused(session, view.id, paused, _who(), admin=True) for view in changed]
            except WaitsForKey as error:
                raise fail(f"{error}; nothing was changed") from error
            _note(session, Act.PAUSE if paused else Act.RESUME, changed, owner=owner)
    word = "paused" if paused else "resumed"
    _done(f"Would be {word}" if dry_run else word.capitalize(), changed, owner, json)


def _who() -> str:
    return f"admin:{desk.name()}"


def _note(session: Session, act: Act, changed: Sequence[HandlerView], **detail: object) -> None:
    for view in changed:
        note(session, desk.operator(), act, HANDLER, view.id, name=view.name, **detail)


def _done(title: str, changed: Sequence[HandlerView], owner: str, json: bool) -> None:
    _show(title, changed, json)
    if not json:
        out.print(f"{len(changed)} handlers of {owner}", markup=False)


def _show(title: str, found: Sequence[HandlerView], json: bool) -> None:
    if json:
        as_json([_plain(view) for view in found])
        return
    rows = (
        (view.id, view.name, view.owner, view.version, view.runtime, "paused" if view.paused else "", moment(view.updated_at_ms))
        for view in found
    )  # fmt: skip
    table(title, ("id", "name", "owner", "version", "runtime", "state", "changed"), rows)


def _plain(view: HandlerView) -> dict[str, object]:
    return {
        "id": view.id, "hook": view.hook, "name": view.name, "owner": view.owner, "version": view.version,
        "runtime": view.runtime, "paused": view.paused, "pause_reason": view.pause_reason,
        "updated_by": view.updated_by, "updated_at": moment(view.updated_at_ms),
    }  # fmt: skip
