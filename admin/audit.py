"""Who did what to whose."""

from __future__ import annotations

import dataclasses
import json as json_form
from typing import Annotated

import typer

from admin import desk
from admin.say import as_json, moment, out, table, when_ms
from ledger.audit import HANDLER, Act, Entry, Wanted, entries


def audit(
    who: Annotated[str, typer.Option(help="only this person's acts")] = "",
    act: Annotated[Act | None, typer.Option(help="only these acts")] = None,
    handler: Annotated[int, typer.Option(min=0, help="only acts on this handler's id, also of one that was removed")] = 0,
    since: Annotated[str, typer.Option(help="only since then: 24h, 7d, 2026-01-31T12:00:00Z")] = "",
    until: Annotated[str, typer.Option(help="only before then")] = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest so many")] = 50,
    before: Annotated[int, typer.Option(min=0, help="only ids below this one: the next page")] = 0,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
) -> None:  # fmt: skip
    """Lists who registered, changed, removed, replayed or read what, the newest first."""
    wanted = Wanted(
        who, act or "", HANDLER if handler else "", str(handler or ""), when_ms(since) if since else 0,
        when_ms(until) if until else 0, before,
    )  # fmt: skip
    with desk.ledger() as ledger, ledger.read() as session:
        found = entries(session, wanted, limit)
    if json:
        as_json([{**dataclasses.asdict(one), "at": moment(one.at_ms)} for one in found])
        return
    columns = ("id", "when", "who", "as", "from", "act", "on", "detail")
    table("Acts", columns, [_row(one) for one in found])
    if len(found) == limit:
        out.print(f"The next page: --before {found[-1].id}")


def _row(one: Entry) -> tuple[object, ...]:
    detail = ", ".join(
        f"{name} {value if isinstance(value, str) else json_form.dumps(value)}" for name, value in one.detail.items()
    )
    return (one.id, moment(one.at_ms), one.who, one.role, one.peer, one.act, f"{one.kind} {one.thing}", detail)
