"""Messages that could not be read: which, why, and once more."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from admin import desk
from admin.say import as_json, fail, harmless, moment, out, table, when_ms
from ledger import Ledger
from ledger.audit import LETTER, Act, note
from ledger.redriven import note_redriven, redriven
from schemas.errors import InvalidMessage, TryLater
from stream.broker import Broker
from stream.letters import Kept, read_letters, why_not_again

app = typer.Typer(no_args_is_help=True, help="Messages that could not be read.")
FLUSH_S = 30.0
SHOWN_BYTES = 4096

Topic = Annotated[str, typer.Option(help="only those that came from this topic")]
Reason = Annotated[str, typer.Option(help="only those whose reason contains this text")]
Since = Annotated[str, typer.Option(help="only those since then: 24h, 7d, 2026-01-31T12:00:00Z")]
Until = Annotated[str, typer.Option(help="only those before then")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table")]


@dataclass(frozen=True)
class Filters:
    """Which letters are meant; '' for any. Times as people write them."""

    topic: str
    reason: str
    since: str
    until: str

    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.topic or self.reason or self.since or self.until)

    def letters(self, broker: Broker, first: int = 0) -> Iterator[Kept]:
        """Those that fit, from the number first on, the oldest first. Raises TryLater."""
        since_ms = when_ms(self.since) if self.since else 0
        until_ms = when_ms(self.until) if self.until else 2**63
        for one in read_letters(broker.admin(), desk.book(broker), first, since_ms):
            fits = (not self.topic or one.letter.topic == self.topic) and self.reason in one.letter.reason
            if fits and since_ms <= one.letter.at_ns // 1_000_000 < until_ms:
                yield one


@dataclass(frozen=True)
class Line:
    """A letter without its bytes, of which there may be very many. why_not: why it cannot be sent again, or ''."""

    kept: Kept
    size: int
    why_not: str

    @property
    def number(self) -> int:
        """As the list has it."""
        return self.kept.number


def _line(one: Kept) -> Line:
    return Line(
        replace(one, letter=replace(one.letter, value=None)), len(one.letter.value or b""), why_not_again(one.letter)
    )


@app.command("list")
def list_(
    topic: Topic = "", reason: Reason = "", since: Since = "", until: Until = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest so many")] = 50,
    before: Annotated[int | None, typer.Option(min=0, help="only numbers below this one: the page before")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Lists dead letters, the newest last."""
    filters = Filters(topic, reason, since, until)
    shown: deque[Line] = deque(maxlen=limit)
    count = 0
    with desk.broker() as broker, desk.ledger() as ledger:
        for one in filters.letters(broker):
            if before is not None and one.number >= before:
                break
            shown.append(_line(one))
            count += 1
        with ledger.read() as session:
            done = redriven(session)
    if json:
        as_json([_plain(one, done.get(one.number)) for one in shown])
        return
    if not shown:
        out.print("There are no dead letters" + (" that fit." if filters.any() or before is not None else "."))
        return
    table(
        f"{len(shown)} of {count} dead letters",
        ("number", "when", "origin", "bytes", "redriven", "reason"),
        (
            (one.number, moment(one.kept.letter.at_ns // 1_000_000), one.kept.origin, one.size,
             moment(done[one.number]) if one.number in done else "", one.kept.letter.reason[:300])
            for one in shown
        ),
    )  # fmt: skip
    if count > len(shown):
        out.print(f"The page before: --before {shown[0].number}")


@app.command()
def show(
    number: Annotated[int, typer.Argument(min=0, help="as the list has it")],
    output: Annotated[Path | None, typer.Option(help="write the message's value into this file")] = None,
    json: Json = False,
) -> None:
    """Shows one dead letter whole."""
    with desk.broker() as broker, desk.ledger() as ledger:
        found = next(Filters("", "", "", "").letters(broker, number), None)
        with ledger.read() as session:
            done = redriven(session)
    if found is None or found.number != number:
        raise fail(f"there is no dead letter {number}; eventproc-admin dead-letters list shows those there are")
    letter = found.letter
    if output is not None:
        try:
            output.write_bytes(letter.value or b"")
        except OSError as error:
            raise fail(f"--output: {error}") from error
    if json:
        as_json({**_plain(_line(found), done.get(number)), "value_hex": (letter.value or b"").hex()})
        return
    value = letter.value or b""
    rows = [
        ("number", number), ("when", moment(letter.at_ns // 1_000_000)), ("origin", found.origin), ("group", letter.group),
        ("key", _text(letter.key)), *((f"header {name}", _text(value)) for name, value in letter.headers),
        ("reason", letter.reason), ("redriven", moment(done[number]) if number in done else "no"),
        ("bytes", "none: a tombstone" if letter.value is None else len(value)), ("value", _text(value[:SHOWN_BYTES])),
    ]  # fmt: skip
    table("", ("", ""), rows, longest=3 * SHOWN_BYTES)
    if len(value) > SHOWN_BYTES and output is None:
        out.print(f"The first {SHOWN_BYTES} of {len(value)} bytes; --output FILE writes all of them")


@app.command()
def redrive(
    numbers: Annotated[list[int] | None, typer.Argument(help="of the letters; none: all that the filters leave")] = None,
    topic: Topic = "", reason: Reason = "", since: Since = "", until: Until = "",
    again: Annotated[bool, typer.Option("--again", help="also those that were redriven before")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be sent, send nothing")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Sends dead letters to where they came from, as they were: same key, value, headers, so the same ids."""
    filters = Filters(topic, reason, since, until)
    if not numbers and not filters.any():
        raise fail("which ones? Give numbers, or --topic, --reason, --since, --until; --since 100w is all of them", 2)
    with desk.broker() as broker, desk.ledger() as ledger:
        first = max(min(numbers), 0) if numbers else 0
        found = [_line(one) for one in filters.letters(broker, first) if not numbers or one.number in numbers]
        unknown = set(numbers or ()) - {one.number for one in found}
        if unknown:
            raise fail(
                f"no dead letter that fits has the number {', '.join(map(str, sorted(unknown)))}; nothing was sent"
            )
        with ledger.read() as session:
            done = redriven(session)
        before = [one for one in found if one.number in done and not again]
        chosen = [one for one in found if not one.why_not and (again or one.number not in done)]
        not_sent = [one for one in found if one.why_not and (again or one.number not in done)]
        if not dry_run:
            refused = _send(broker, ledger, {one.number for one in chosen})
            chosen = [one for one in chosen if one.number not in refused]
            not_sent += [replace(one, why_not=refused[one.number]) for one in found if one.number in refused]
    if json:
        left = [{"number": one.number, "why": one.why_not} for one in not_sent]
        as_json({"sent": not dry_run, "letters": [_plain(one, None) for one in chosen], "not_sent": left})
    else:
        rows = ((one.number, one.kept.origin, one.size) for one in chosen)
        table("Would be redriven" if dry_run else "Redriven", ("number", "to where it came from", "bytes"), rows)
        out.print(f"{len(chosen)} {'would be sent' if dry_run else 'sent'}; {len(before)} were redriven before")
        for one in not_sent:
            out.print(f"not sent: {one.number}, for {harmless(one.why_not)}", markup=False)
    if not_sent and not chosen:
        raise typer.Exit(1)


def _send(broker: Broker, ledger: Ledger, numbers: Collection[int]) -> dict[int, str]:
    """Sends these letters, one by one, so that what is noted has been sent; those that cannot be sent, and why."""
    refused: dict[int, str] = {}
    producer = broker.producer()
    sent = 0
    try:
        for one in Filters("", "", "", "").letters(broker, min(numbers, default=0)) if numbers else ():
            if one.number not in numbers:
                continue
            letter = one.letter
            try:
                producer.send(letter.topic, letter.value, key=letter.key, headers=letter.headers)
                producer.flush(FLUSH_S)
            except InvalidMessage as error:
                refused[one.number] = error.reason
                continue
            with ledger.write() as session:
                note_redriven(session, one.number, desk.name())
                note(session, desk.operator(), Act.REDRIVE, LETTER, one.number, topic=letter.topic)
            sent += 1
    except TryLater as error:
        raise TryLater(f"{error.reason} ({sent} of {len(numbers)} were sent; the same command goes on)") from error
    return refused


def _plain(one: Line, redriven_ms: int | None) -> dict[str, object]:
    letter = one.kept.letter
    return {
        "number": one.number, "at": moment(letter.at_ns // 1_000_000), "topic": letter.topic, "partition": letter.partition,
        "offset": letter.offset, "group": letter.group, "reason": letter.reason, "key": _text(letter.key),
        "headers": {name: _text(value) for name, value in letter.headers}, "bytes": one.size,
        "redriven_at": moment(redriven_ms) if redriven_ms is not None else None,
    }  # fmt: skip


def _text(data: bytes | None) -> str:
    if data is None:
        return ""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"hex {data.hex()}"
    plain = all(sign.isprintable() or sign in "\n\t\r" for sign in text)
    return text if plain else f"hex {data.hex()}"
