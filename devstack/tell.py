"""How the demo and the stack speak to a person: progress, tables, emails as they arrive."""

from __future__ import annotations

import email
import email.policy
import sys
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 120)


def progress(text: str) -> None:
    """One line about something that is being done."""
    console.print(f"[dim]•[/dim] {escape(text)}")


def chapter(number: int, title: str, text: str = "") -> None:
    """A new part of the story."""
    console.print()
    console.rule(f"[bold]{number}. {escape(title)}[/bold]", align="left")
    if text:
        console.print(escape(text))


def say(text: str) -> None:
    """A sentence."""
    console.print(escape(text))


def problem(text: str) -> None:
    """The reason for a failure, on stderr."""
    # soft_wrap: a path or an error is to be copied whole
    Console(stderr=True, highlight=False).print(f"[bold red]✗[/bold red] {escape(text)}", soft_wrap=True)


def well(text: str) -> None:
    """The good end."""
    console.print(f"\n[bold green]✓[/bold green] {escape(text)}")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of plain texts."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))
    console.print(drawn)


def read_mail(path: Path) -> EmailMessage:
    """An .eml file as a message."""
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def mail(path: Path) -> None:
    """An email in full: its headers and its plain text (the HTML says the same)."""
    message = read_mail(path)
    body = message.get_body(("plain",))
    head = "\n".join(f"{name}: {message[name]}" for name in ("From", "To", "Subject", "Date", "Message-ID"))
    text = Text(head, style="dim")
    text.append("\n\n" + (body.get_content().rstrip() if body is not None else "(no plain text)"), style="not dim")
    console.print(Panel(text, title=escape(path.name), title_align="left", border_style="blue"))


def endpoints(env: str, state: Path) -> None:
    """What make up prints in the end."""
    console.print("\n[bold green]The stack is up.[/bold green] From a notebook or a shell:\n")
    print(env)
    console.print(escape(f"  source {state / 'env'}        # sets all of the above"))
    console.print("  .venv/bin/python -m ctingress ARCHIVE.zip --tags a,b")
    console.print(escape(f"  ls {state / 'mail'}           # the emails"))
    console.print("  eventproc-admin               # for operators: dead letters, replay, emails, reconcile")
    console.print("  make down                     # stops it; the data stays")
