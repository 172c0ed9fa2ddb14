"""What became of the emails, and those that were given up once more."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Annotated

import typer

from admin import desk
from admin.say import as_json, fail, moment, out, table, when_ms
from ledger import outbox
from ledger.audit import EMAIL, Act, note
from ledger.runs import lines
from ledger.tables import GIVEN_UP, PENDING, SENDING, SENT

app = typer.Typer(no_args_is_help=True, help="What became of the emails.")
ALL = 1_000_000


class State(StrEnum):
    """Of an email."""

    PENDING = PENDING
    SENDING = SENDING
    SENT = SENT
    GIVEN_UP = GIVEN_UP


Recipient = Annotated[str, typer.Option(help="only those to this address")]
Reason = Annotated[str, typer.Option(help="only those whose reason contains this text")]
Since = Annotated[str, typer.Option(help="only those made since then: 24h, 7d, 2026-01-31T12:00:00Z")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table")]


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="only those in this state")] = None,
    recipient: Recipient = "", reason: Reason = "", since: Since = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest so many")] = 50,
    before: Annotated[int, typer.Option(min=0, help="only ids below this one: the next page")] = 0,
    json: Json = False,
) -> None:  # fmt: skip
    """Lists emails, the newest first."""
    wanted = outbox.Wanted(state or "", recipient, reason, when_ms(since) if since else 0, before)
    with desk.ledger() as ledger, ledger.read() as session:
        found = outbox.recent(session, wanted, limit)
    if json:
        as_json([dataclasses.asdict(one) for one in found])
        return
    _table("Emails", found)
    if len(found) == limit:
        out.print(f"The next page: --before {found[-1].id}")


@app.command()
def show(number: Annotated[int, typer.Argument(metavar="ID", help="as the list has it")], json: Json = False) -> None:
    """Shows one email and the runs that it accounts for."""
    with desk.ledger() as ledger, ledger.read() as session:
        mail = outbox.line(session, number)
        if mail is None:
            raise fail(f"there is no email {number}; eventproc-admin emails list shows those there are")
        runs = lines(session, outbox.run_ids(session, number))
    if json:
        as_json({**dataclasses.asdict(mail), "run_list": [dataclasses.asdict(one) for one in runs]})
        return
    rows = [
        ("id", mail.id), ("Message-ID", f"{mail.message_id} (before the @)"), ("to", mail.recipient), ("kind", mail.kind),
        ("state", mail.state), ("made", moment(mail.created_at_ms)), ("tries", mail.tries), ("reason", mail.reason),
        ("due" if mail.state in (PENDING, SENDING) else "ended", moment(mail.next_or_end_ms)),
    ]  # fmt: skip
    table("", ("", ""), rows)
    told = ((one.run_id, one.handler_name, one.outcome.value, one.subject, one.error) for one in runs)
    table("\nThe runs that it accounts for", ("run", "handler", "outcome", "archive", "error"), told)


@app.command()
def retry(
    ids: Annotated[list[int] | None, typer.Argument(help="of emails that were given up; none: all that the filters leave")] = None,
    recipient: Recipient = "", reason: Reason = "", since: Since = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say which, change nothing")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Has emails that were given up tried again, under their old Message-ID."""
    if not ids and not (recipient or reason or since):
        raise fail("which ones? Give ids, or --recipient, --reason, --since; --since 100w is all of them", 2)
    wanted = outbox.Wanted(GIVEN_UP, recipient, reason, when_ms(since) if since else 0)
    with desk.ledger() as ledger, ledger.write() as session:
        found = [one for one in outbox.recent(session, wanted, ALL) if not ids or one.id in ids]
        if not dry_run:
            outbox.retry(session, [one.id for one in found])
            for one in found:
                note(session, desk.operator(), Act.RETRY_EMAIL, EMAIL, one.id, to=one.recipient)
    if json:
        as_json({"tried_again": not dry_run, "emails": [dataclasses.asdict(one) for one in found]})
    else:
        _table("Would be tried again" if dry_run else "Will be tried again", found)
        out.print(f"{len(found)} {'would be' if dry_run else 'will be'} tried again")
    left = sorted(set(ids or ()) - {one.id for one in found})
    if left:
        raise fail(f"not given up, or not there, or not fitting: {', '.join(map(str, left))}")


def _table(title: str, found: list[outbox.MailLine]) -> None:
    rows = (
        (one.id, moment(one.created_at_ms), one.recipient, one.kind, one.state, one.tries, one.runs, one.reason)
        for one in found
    )
    table(title, ("id", "made", "to", "kind", "state", "tries", "runs", "reason"), rows)
