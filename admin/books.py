"""Whom an event meets, whether the books add up, and what became of the emails."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Annotated

import typer

from admin import desk
from admin.dead_letters import kept
from admin.say import as_json, fail, moment, out, table, when_ms
from admin.settings import AdminSettings
from ledger import Ledger
from ledger import outbox as box
from ledger.reconcile import Books, Problem, unknown_events
from ledger.reconcile import reconcile as compare
from ledger.why import event_tags, frozen, verdicts
from schemas.contracts import hook_names
from schemas.errors import InvalidMessage
from schemas.events import read_event
from stream.broker import Broker
from telemetry.settings import from_environment

HOOK = hook_names()[0]
emails = typer.Typer(no_args_is_help=True, help="What became of the emails.")
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
    out.print(f"The event's tags: {', '.join(has) or 'none'}")
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
            "--topics",
            help="read the hooks' topics too, and name events that are nowhere",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Do events, runs and emails add up? Exit code 1 when they do not."""
    with desk.ledger() as ledger:
        with ledger.read() as session:
            books = compare(session, when_ms(since), overdue)
        if topics:
            with desk.broker() as broker:
                lost = _lost(broker, ledger)
            what = "events that were consumed but are in neither the ledger nor the dead letters"
            problem = Problem("event_lost", what, len(lost), tuple(lost[:20]))
            books = dataclasses.replace(books, problems=(*books.problems, *([problem] if lost else [])))
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
        *((f"runs {state}", count) for state, count in sorted(books.runs.items())),
        *((f"emails {state}", count) for state, count in sorted(books.emails.items())),
        ("longest wait of a run that is due", f"{books.oldest_queued_s:.0f} s"),
    ]
    table(f"Since {moment(books.since_ms)}", ("", "count"), rows)
    for problem in books.problems:
        out.print(f"\nDOES NOT ADD UP ({problem.kind}): {problem.count} {problem.what}", markup=False)
        for name in problem.names:
            out.print(f"  {name}", markup=False)
    if not books.problems:
        out.print("\nEverything adds up.")


def _lost(broker: Broker, ledger: Ledger) -> list[str]:
    """Events that the dispatcher has committed and that are nowhere."""
    group = from_environment(AdminSettings).dispatcher_group
    dead = {(one.letter.topic, one.letter.partition, one.letter.offset) for one in kept(broker)}
    lost = []
    for hook in hook_names():
        done = broker.admin().committed(group, hook)
        keys: dict[tuple[str, str], str] = {}
        for message in broker.admin().read(hook):
            place = (message.topic, message.partition, message.offset)
            if message.offset >= done.get(message.partition, 0) or place in dead:
                continue
            name = f"{message.topic}/{message.partition}/{message.offset}"
            try:
                keys[(hook, read_event(hook, message.value, message.headers).request_id)] = name
            except InvalidMessage as error:
                lost.append(f"{name}: cannot be read ({error.reason}), and is no dead letter")
        with ledger.read() as session:
            lost.extend(f"{keys[key]}: RequestID {key[1]}" for key in unknown_events(session, list(keys)))
    return lost


@emails.command("list")
def list_(
    state: Annotated[str, typer.Option(help="pending, sending, sent or given_up; empty: all")] = "",
    recipient: Annotated[str, typer.Option(help="only to this address")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 50,
    json: Json = False,
) -> None:
    """Lists emails, the newest first."""
    with desk.ledger() as ledger, ledger.read() as session:
        found = box.recent(session, state, recipient, limit)
    if json:
        as_json([dataclasses.asdict(one) for one in found])
        return
    rows = (
        (one.id, moment(one.created_at_ms), one.recipient, one.kind, one.state, one.tries, one.runs, one.reason)
        for one in found
    )
    table("Emails", ("id", "made", "to", "kind", "state", "tries", "runs", "reason"), rows)


@emails.command()
def retry(ids: Annotated[list[int], typer.Argument(help="of emails that were given up")]) -> None:
    """Has emails that were given up tried again, under their old Message-ID."""
    with desk.ledger() as ledger, ledger.write() as session:
        done = box.retry(session, ids)
    out.print(f"{done} of {len(ids)} will be tried again")
    if done < len(ids):
        raise fail("the others were not given up, or are not there")


def _request_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise fail(f"--event: {text!r} is no UUID", 2) from None
