"""A schema of others is read by only when no few bytes can stand for a value without end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.contracts import contract_of, contracts


def record(*kinds: Any, name: str = "x") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(kinds)]}


def deep(levels: int) -> Any:
    kind: Any = "string"
    for _ in range(levels):
        kind = {"type": "array", "items": kind}
    return kind


UNSOUND: dict[str, tuple[Any, str]] = {
    "a record within itself": (record("int", "x"), "the type x contains itself"),
    "a list of itself": (record({"type": "array", "items": "x"}), "the type x contains itself"),
    "a chain of itself": (record(["null", "x"]), "the type x contains itself"),
    "a list of nothing": (record({"type": "array", "items": "null"}), "what an array holds takes no bytes"),
    "a list of empty records": (record({"type": "array", "items": record(name="e")}), "what an array holds takes no bytes"),
    "nothing times nothing": (record("int", record("null", "null", name="e")), "the fields of e take no bytes"),
    "a list of empty bytes": (
        record({"type": "array", "items": {"type": "fixed", "name": "e", "size": 0}}), "what an array holds takes no bytes",
    ),
    "lists in lists": (record(deep(100)), "nested deeper than 64"),
    "lists in lists without end": (record(deep(400)), "nested too deeply"),
    "a number beyond all numbers": (
        record({"type": "fixed", "name": "f", "size": 10**400, "logicalType": "decimal", "precision": 9}), "OverflowError",
    ),
    "a type that is no word": ({"type": ["a"], "name": "x"}, "no schema that can be read by"),
    "a name that is a number": ({"type": "record", "name": 1, "fields": []}, "no schema that can be read by"),
    "a list": ([{"name": "x"}], "no schema that can be read by"),
    "half a letter": (record(name="x\ud800"), "no schema that can be read by"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSOUND)
def test_what_could_end_a_reader_is_no_schema(case: str) -> None:
    raw, says = UNSOUND[case]

    with pytest.raises(ValueError, match=says):
        contract_of("x", raw)


@pytest.mark.parametrize("name", sorted(contracts()))
def test_what_we_write_by_may_grow_by_whatever_ends(name: str) -> None:
    raw = json.loads(json.dumps(contracts()[name].raw))
    raw["fields"].append(
        {"name": "Later", "default": None, "type": ["null", record(deep(20), ["null", "string"], name="Later")]}
    )

    assert contract_of(name, raw).fingerprint != contracts()[name].fingerprint
