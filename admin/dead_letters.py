"""Messages that could not be read: which, why, and once more."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from admin import desk
from admin.say import as_json, fail, moment, out, table, when_ms
from ledger.redriven import note_redriven, redriven
from schemas.encoding import decode
from schemas.errors import InvalidMessage
from schemas.records import DeadLetter, dead_letter_from
from schemas.topics import DEAD_LETTERS
from stream.broker import Broker
from stream.letters import is_whole

app = typer.Typer(no_args_is_help=True, help="Messages that could not be read.")
FLUSH_S = 30.0
SHOWN_BYTES = 4096

Topic = Annotated[str, typer.Option(help="only those that came from this topic")]
Reason = Annotated[str, typer.Option(help="only those whose reason contains this text")]
Since = Annotated[str, typer.Option(help="only those since then: 24h, 7d, 2026-01-31T12:00:00Z")]
Until = Annotated[str, typer.Option(help="only those before then")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table")]


@dataclass(frozen=True)
class Kept:
    """A dead letter and its number, which is its offset in eventproc.dead-letters."""

    number: int
    letter: DeadLetter

    @property
    def origin(self) -> str:
        return f"{self.letter.topic}/{self.letter.partition}/{self.letter.offset}"


def kept(broker: Broker, topic: str = "", reason: str = "", since: str = "", until: str = "") -> Iterator[Kept]:
    """The dead letters that fit, the oldest first. Raises TryLater."""
    since_ns = when_ms(since) * 1_000_000 if since else 0
    until_ns = when_ms(until) * 1_000_000 if until else 2**63
    for message in broker.admin().read(DEAD_LETTERS):
        try:
            letter = dead_letter_from(decode("dead_letter", message.value, message.headers))
        except InvalidMessage as error:
            letter = DeadLetter(
                DEAD_LETTERS, message.partition, message.offset, message.key, message.value, message.headers, "",
                f"not a dead letter of ours: {error.reason}", message.timestamp_ms * 1_000_000,
            )  # fmt: skip
        fits = (not topic or letter.topic == topic) and reason in letter.reason and since_ns <= letter.at_ns < until_ns
        if fits:
            yield Kept(message.offset, letter)


@app.command("list")
def list_(
    topic: Topic = "", reason: Reason = "", since: Since = "", until: Until = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest so many")] = 50, json: Json = False,
) -> None:  # fmt: skip
    """Lists dead letters, the newest last."""
    with desk.broker() as broker, desk.ledger() as ledger:
        found = list(kept(broker, topic, reason, since, until))
        with ledger.read() as session:
            done = redriven(session)
    shown = found[-limit:]
    if json:
        as_json([_plain(one, done.get(one.number)) for one in shown])
        return
    if not found:
        out.print("There are no dead letters" + (" that fit." if topic or reason or since or until else "."))
        return
    table(
        f"{len(shown)} of {len(found)} dead letters",
        ("number", "when", "origin", "bytes", "redriven", "reason"),
        (
            (one.number, moment(one.letter.at_ns // 1_000_000), one.origin, len(one.letter.value or b""),
             moment(done[one.number]) if one.number in done else "", one.letter.reason[:300])
            for one in shown
        ),
    )  # fmt: skip


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="as the list has it")],
    output: Annotated[Path | None, typer.Option(help="write the message's value into this file")] = None,
    json: Json = False,
) -> None:
    """Shows one dead letter whole."""
    with desk.broker() as broker, desk.ledger() as ledger:
        found = next((one for one in kept(broker) if one.number == number), None)
        with ledger.read() as session:
            done = redriven(session)
    if found is None:
        raise fail(f"there is no dead letter {number}; eventproc-admin dead-letters list shows those there are")
    letter = found.letter
    if output is not None:
        output.write_bytes(letter.value or b"")
    if json:
        as_json({**_plain(found, done.get(number)), "value_hex": (letter.value or b"").hex()})
        return
    rows = [
        ("number", number), ("when", moment(letter.at_ns // 1_000_000)), ("origin", found.origin), ("group", letter.group),
        ("key", _text(letter.key)), *((f"header {name}", _text(value)) for name, value in letter.headers),
        ("reason", letter.reason), ("bytes", len(letter.value or b"")), ("value", _text((letter.value or b"")[:SHOWN_BYTES])),
    ]  # fmt: skip
    table("", ("", ""), rows)


@app.command()
def redrive(
    numbers: Annotated[list[int] | None, typer.Argument(help="of the letters; none: all that the filters leave")] = None,
    topic: Topic = "", reason: Reason = "", since: Since = "", until: Until = "",
    again: Annotated[bool, typer.Option("--again", help="also those that were redriven before")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be sent, send nothing")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Sends dead letters to where they came from, as they were: same key, value, headers, so the same ids."""
    if not numbers and not (topic or reason or since or until):
        raise fail("which ones? Give numbers, or --topic, --reason, --since, --until; --since 100w is all of them", 2)
    with desk.broker() as broker, desk.ledger() as ledger:
        found = [one for one in kept(broker, topic, reason, since, until) if not numbers or one.number in numbers]
        unknown = set(numbers or ()) - {one.number for one in found}
        if unknown:
            raise fail(
                f"no dead letter that fits has the number {', '.join(map(str, sorted(unknown)))}; nothing was sent"
            )
        with ledger.read() as session:
            done = redriven(session)
        chosen = [one for one in found if again or one.number not in done]
        cut = [one.number for one in chosen if not is_whole(one.letter)]
        chosen = [one for one in chosen if is_whole(one.letter)]
        if not dry_run:
            producer = broker.producer()
            for one in chosen:  # one by one: what is noted has been sent
                letter = one.letter
                producer.send(letter.topic, letter.value, key=letter.key, headers=letter.headers)
                producer.flush(FLUSH_S)
                with ledger.write() as session:
                    note_redriven(session, one.number, getpass.getuser())
    if json:
        as_json({"sent": not dry_run, "letters": [_plain(one, None) for one in chosen], "cut": cut})
        return
    rows = ((one.number, one.origin, len(one.letter.value or b"")) for one in chosen)
    table("Would be redriven" if dry_run else "Redriven", ("number", "to where it came from", "bytes"), rows)
    out.print(
        f"{len(chosen)} {'would be sent' if dry_run else 'sent'}; {len(found) - len(chosen) - len(cut)} were redriven before"
    )
    if cut:
        out.print(f"not sent, for their bytes were too many to be kept whole: {', '.join(map(str, cut))}")


def _plain(one: Kept, redriven_ms: int | None) -> dict[str, object]:
    letter = one.letter
    return {
        "number": one.number, "at": moment(letter.at_ns // 1_000_000), "topic": letter.topic, "partition": letter.partition,
        "offset": letter.offset, "group": letter.group, "reason": letter.reason, "key": _text(letter.key),
        "headers": {name: _text(value) for name, value in letter.headers}, "bytes": len(letter.value or b""),
        "redriven_at": moment(redriven_ms) if redriven_ms is not None else None,
    }  # fmt: skip


def _text(data: bytes | None) -> str:
    if data is None:
        return ""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"hex {data.hex()}"
    return text if text.isprintable() or "\n" in text else f"hex {data.hex()}"
