"""What the commands print: tables for people, JSON for scripts; and times as people write them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED = (
    None if sys.stdout.isatty() or "COLUMNS" in os.environ else 500
)  # a pipe has no margin: lines stay whole for grep
out = Console(highlight=False, width=PIPED)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_AGO = re.compile(r"(\d+)(s|min|h|d|w)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], longest: int = 300) -> None:
    """Prints a table; what users wrote is never markup nor a control sign, and at most longest characters of it are shown."""
    shown = Table(title=Text(title), title_justify="left", show_edge=False, pad_edge=False, show_header=any(columns))
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(harmless(str(cell), longest)) for cell in row))
    out.print(shown)


def harmless(text: str, longest: int = 300) -> str:
    """The text for a terminal: control signs, with which a name could move the cursor or hide a line, are made visible."""
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in cut)


def as_json(value: Any) -> None:
    """Prints one JSON document."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def fail(problem: str, code: int = 1) -> typer.Exit:
    """Prints what is wrong to stderr; raise what comes back."""
    err.print(Text(f"eventproc-admin: {harmless(problem, 3000)}"))
    return typer.Exit(code)


def say(text: str) -> None:
    """Prints something beside the answer, to stderr."""
    err.print(Text(text))


def moment(ms: int) -> str:
    """ms since the epoch as 2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def when_ms(text: str) -> int:
    """A time as people write it: 90s, 30min, 24h, 7d, 2w ago; or RFC 3339, UTC when no offset is given. ms since the epoch."""
    ago = _AGO.fullmatch(text.strip())
    if ago:
        at = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return int(at.timestamp() * 1000)
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; 24h, 7d, 2026-01-31 or 2026-01-31T12:00:00Z would be") from None
    return int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
