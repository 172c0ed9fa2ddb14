"""Past events once more."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from admin import desk
from admin.say import as_json, fail, out, say, table, when_ms
from ledger.audit import HANDLER, Act, note
from ledger.replay import FAILED, MISSING, CannotReplay, Page, Planned, Selection, check, plan
from ledger.replay import replay as make
from schemas.contracts import hook_names

SHOWN = 100


class Only(StrEnum):
    """Which matches of the events a replay takes."""

    MISSING = MISSING
    FAILED = FAILED


HOOK = hook_names()[0]
Hook = Annotated[str, typer.Option(help="the hook's name")]


def replay(
    event: Annotated[str, typer.Option(help="the RequestID of one event")] = "",
    since: Annotated[str, typer.Option(help="all events received since then: 30d, 2026-01-01")] = "",
    until: Annotated[str, typer.Option(help="and before then")] = "",
    handler: Annotated[int | None, typer.Option(help="only this handler's id; else all that match now")] = None,
    only: Annotated[
        Only | None, typer.Option(help="only where the handler has no run yet, or its newest run ended badly")
    ] = None,
    hook: Hook = HOOK,
    replay_id: Annotated[
        str, typer.Option(help="a UUID: this replay's own; the same again goes on where it broke off")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs, make none")] = False,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Runs the handlers of today on past events: new runs, which point to the old ones. The sweeper invites them in turn."""
    selection = replace(_selection(event, since, until, handler, hook), only=only or "")
    this = _uuid(replay_id, "--replay-id") if replay_id else str(uuid.uuid4())
    planned: list[Planned] = []
    events, after = 0, None
    with desk.ledger() as ledger:
        with ledger.read() as session:
            try:
                check(session, selection)
            except CannotReplay as error:
                raise fail(str(error)) from error
        if not dry_run:
            say(f"replay {this}: if it breaks off, the same command with --replay-id {this} goes on")
        while True:
            if dry_run:
                with ledger.read() as session:
                    page = plan(session, selection, this, after)
            else:
                with ledger.write() as session:
                    page = make(session, selection, this, after)
                    _note(session, page, this)
            planned.extend(page.planned)
            events, after = events + page.events, page.after
            if after is None:
                break
    if json:
        as_json({"replay_id": this, "made": not dry_run, "events": events, "runs": [_plain(one) for one in planned]})
        return
    rows = (_row(one) for one in planned[:SHOWN])
    table("Would run" if dry_run else "Will run", ("archive", "handler", "owner", "why", "run", "does again"), rows)
    if len(planned) > SHOWN:
        out.print(f"... and {len(planned) - SHOWN} more; --json has all")
    there = sum(one.there for one in planned)
    out.print(
        f"{events} events, {len(planned) - there} runs {'would be made' if dry_run else 'made'}"
        + (f", {there} were there already" if there else "")
        + (f"; with --replay-id {this} these very runs" if dry_run else f"; replay {this}")
    )


def _note(session: Session, page: Page, this: str) -> None:
    """One act for each handler whose runs are made."""
    for handler_id, runs in Counter(one.match.handler_id for one in page.planned if not one.there).items():
        note(session, desk.operator(), Act.REPLAY, HANDLER, handler_id, replay_id=this, runs=runs)


def _row(one: Planned) -> tuple[str, ...]:
    handler = f"{one.handler_name} v{one.match.version}"
    return (one.subject or one.request_id, handler, one.match.owner, one.why, one.run_id, one.replay_of or "")


def _selection(event: str, since: str, until: str, handler: int | None, hook: str) -> Selection:
    if hook not in hook_names():
        raise fail(f"no hook is called {hook!r}; there are: {', '.join(hook_names())}", 2)
    if event and (since or until):
        raise fail("--event is one event; --since and --until are all of a time: give one or the other", 2)
    if not event and not since:
        raise fail("which events? Give --event REQUEST_ID or --since TIME (and --until TIME)", 2)
    return Selection(
        hook,
        _uuid(event, "--event") if event else "",
        when_ms(since) if since else None,
        when_ms(until) if until else None,
        handler,
    )


def _uuid(text: str, option: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise fail(f"{option}: {text!r} is no UUID", 2) from None


def _plain(one: Planned) -> dict[str, object]:
    return {
        "run_id": one.run_id, "request_id": one.request_id, "archive": one.subject, "handler_id": one.match.handler_id,
        "handler": one.handler_name, "version": one.match.version, "owner": one.match.owner, "runtime": one.match.runtime,
        "why": one.why, "replay_of": one.replay_of, "was_there": one.there,
    }  # fmt: skip
