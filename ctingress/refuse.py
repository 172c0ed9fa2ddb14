"""What the ingress refuses, and how it says so."""

from __future__ import annotations


class BadArchive(ValueError):
    """The archive cannot be taken at all: nothing of it is written or published."""


class BadRecording(ValueError):
    """One recording cannot be read: it is in the event with this text; the others go on."""


def field_error(line: int, field: int, what: str, value: str, right: str) -> BadRecording:
    """A field that is wrong: line and field count from 1."""
    shown = value if len(value) <= 40 else value[:37] + "..."
    return BadRecording(f"line {line}, field {field} ({what}): is {shown!r}; it should be {right}")
