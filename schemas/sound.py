"""Which Avro schemas of others are read by: none by which a few bytes could stand for a value without end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEEPEST = 64


def check_sound(parsed: Any) -> None:
    """Raises ValueError naming what is wrong: nested deeper than DEEPEST, a type that contains itself, one that takes no bytes.

    fastavro reads a value by recursion in C: a type within itself lets the message decide how deep, and the process dies of it.
    Of values that take no bytes a message of ten bytes may claim billions.

    parsed: as fastavro has parsed it, names in full.
    """
    _takes_none(parsed, {}, frozenset(), 0)


def check_depth(raw: Any) -> None:
    """Raises ValueError when the JSON is nested deeper than any schema that is read here; does not recurse."""
    level = [raw]
    for _ in range(4 * DEEPEST):  # a type in a field in a list of fields is four deep
        level = [
            part
            for one in level
            for part in (one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ())
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _takes_none(schema: Any, known: dict[str, bool], within: frozenset[str], depth: int) -> bool:
    """Whether a value of the schema takes no bytes."""
    if depth > DEEPEST:
        raise ValueError(f"its types are nested deeper than {DEEPEST}")
    if isinstance(schema, list):
        for branch in schema:
            _takes_none(branch, known, within, depth + 1)
        return False
    kind = schema["type"] if isinstance(schema, Mapping) else schema
    if not isinstance(kind, str):
        return _takes_none(kind, known, within, depth + 1)
    if kind in within:
        raise ValueError(f"the type {kind} contains itself")
    if kind in ("array", "map"):
        item = schema["items" if kind == "array" else "values"]
        if _takes_none(item, known, within, depth + 1):
            raise ValueError(f"what an {kind} holds takes no bytes")
        return False
    if kind in ("record", "error"):
        inside = within | {schema["name"]}
        fields = [_takes_none(field["type"], known, inside, depth + 1) for field in schema["fields"]]
        if fields and all(fields):
            raise ValueError(f"the fields of {schema['name']} take no bytes")
        known[schema["name"]] = not fields
        return not fields
    if kind in ("fixed", "enum"):
        known[schema["name"]] = kind == "fixed" and schema["size"] <= 0
        return known[schema["name"]]
    return known.get(kind, kind == "null")
