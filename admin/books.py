"""Whom an event meets, and whether the books add up."""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Sequence
from typing import Annotated

import typer

from admin import desk
from admin.say import as_json, fail, harmless, moment, out, table, when_ms
from admin.settings import AdminSettings
from ledger import Ledger
from ledger.reconcile import EVENT_LOST, Books, problem, unknown_events
from ledger.reconcile import reconcile as compare
from ledger.why import event_tags, frozen, verdicts
from schemas.contracts import hook_names
from stream.broker import Broker
from stream.seen import lost_events
from telemetry.settings import from_environment

HOOK = hook_names()[0]
Json = Annotated[bool, typer.Option("--json")]


def matches(
    event: Annotated[str, typer.Option(help="the RequestID of an event that has been dispatched")] = "",
    tags: Annotated[str | None, typer.Option(help="or the tags of one that might come: a,b; '' for none")] = None,
    hook: Annotated[str, typer.Option(help="the hook's name")] = HOOK,
    json: Json = False,
) -> None:
    """Which handlers an event meets, and why; and which not."""
    if bool(event) == (tags is not None):
        raise fail("give --event REQUEST_ID, or --tags a,b", 2)
    with desk.ledger() as ledger, ledger.read() as session:
        if event:
            request_id = _request_id(event)
            has = event_tags(session, hook, request_id)
            if has is None:
                raise fail(f"no event of {hook} has the RequestID {request_id}")
            met = frozen(session, hook, request_id)
        else:
            has, met = tuple(tag.strip() for tag in (tags or "").split(",") if tag.strip()), []
        told = verdicts(session, hook, has)
    if json:
        as_json({
            "tags": has, "met": [dataclasses.asdict(one) for one in met], "now": [dataclasses.asdict(one) for one in told]
        })  # fmt: skip
        return
    out.print(harmless(f"The event's tags: {', '.join(has) or 'none'}", 1000), markup=False)
    if event:
        rows = ((f"{one.name} v{one.version}", one.handler_id, one.state, one.run_id) for one in met)
        table("\nWhen it came it met", ("handler", "id", "run is", "run"), rows)
    now = (
        (("yes" if one.matches else "no"), f"{one.name} v{one.version}", one.handler_id, one.owner, one.why)
        for one in told
    )
    table("\nNow it would meet", ("meets", "handler", "id", "owner", "because it"), now)


def reconcile(
    since: Annotated[str, typer.Option(help="events received since then")] = "24h",
    overdue: Annotated[float, typer.Option(help="seconds that a lease or an email may be overdue")] = 600.0,
    topics: Annotated[
        bool,
        typer.Option(
            help="read the hooks' topics in Kafka too, and name events that are nowhere",
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Do events, runs and emails add up? Exit code 1 when they do not."""
    with desk.ledger() as ledger:
        with ledger.read() as session:
            books = compare(session, when_ms(since), overdue)
        if topics:
            with desk.broker() as broker:
                lost = _lost(broker, ledger, books.since_ms)
            if lost:
                what = "events that were consumed and are in neither the ledger nor the dead letters"
                books = dataclasses.replace(books, problems=(problem(EVENT_LOST, what, lost), *books.problems))
    if json:
        as_json(dataclasses.asdict(books))
    else:
        _tell(books)
    if books.problems:
        raise typer.Exit(1)


def _tell(books: Books) -> None:
    rows = [
        ("events", books.events),
        ("runs that their matches make", books.expected),
        ("runs that replays made", books.replayed),
        ("runs queued whose task is out", books.invited),
        *((f"runs {state}", count) for state, count in sorted(books.runs.items())),
        *((f"emails {state}", count) for state, count in sorted(books.emails.items())),
        *(
            (f"of these removed for their age: {kind}s", count)
            for kind, count in sorted(books.removed.items())
            if count
        ),
        ("longest wait of a run that is due", f"{books.oldest_queued_s:.0f} s"),
    ]
    table(f"Since {moment(books.since_ms)}", ("", "count"), rows)
    for one in books.problems:
        out.print(f"\nDOES NOT ADD UP ({one.kind}): {one.count} {one.what}", markup=False)
        for name in one.names:
            out.print(f"  {harmless(name)}", markup=False)
        if one.count > len(one.names):
            out.print(f"  ... and {one.count - len(one.names)} more")
    if not books.problems:
        out.print("\nEverything adds up.")


def _lost(broker: Broker, ledger: Ledger, since_ms: int) -> list[str]:
    """Events that the dispatcher has committed and that are nowhere."""
    group = from_environment(AdminSettings).dispatcher_group

    lost: list[str] = []
    for hook in hook_names():
        unknown = functools.partial(_unknown, ledger, hook)
        found, _ = lost_events(broker.admin(), desk.book(broker), hook, group, unknown, since_ms)
        lost.extend(str(one) for one in found)
    return lost


def _unknown(ledger: Ledger, hook: str, request_ids: Sequence[str]) -> list[str]:
    with ledger.read() as session:
        return [request_id for _, request_id in unknown_events(session, [(hook, one) for one in request_ids])]


def _request_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise fail(f"--event: {text!r} is no UUID", 2) from None
