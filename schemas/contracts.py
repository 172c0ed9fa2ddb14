"""The Avro contracts: every .avsc of this folder, parsed once, found by name or by fingerprint."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from schemas.sound import check_depth, check_sound

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contract:
    """One Avro schema.

    name: the hook's or the record's name, for instance 'ctingress.on_complete' or 'task'.
    raw: the .avsc as JSON; parsed: fastavro's form of it.
    fingerprint: CRC-64-AVRO of the parsing canonical form, 8 bytes, little-endian (Avro 1.11, single-object encoding).
    """

    name: str
    raw: Mapping[str, Any]
    parsed: Any
    fingerprint: bytes


def contract_of(name: str, raw: Mapping[str, Any]) -> Contract:
    """The Contract of a schema given as JSON; raises ValueError when it is none that messages are read by (schemas/sound.py)."""
    check_depth(raw)
    try:
        canonical = to_parsing_canonical_form(raw)
        parsed = parse_schema(dict(raw))
        check_sound(parsed)
        # fastavro prints the CRC's bytes in the order in which single-object encoding sends them
        return Contract(name, raw, parsed, bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")))
    except Exception as error:  # what it trips over in JSON that is no schema may be of any class
        raise ValueError(f"no schema that can be read by: {type(error).__name__}: {error}") from error


def _load(folder: str) -> dict[str, Contract]:
    paths = sorted((HERE / folder).glob("*.avsc"))
    return {
        p.name.removesuffix(".avsc"): contract_of(p.name.removesuffix(".avsc"), json.loads(p.read_text()))
        for p in paths
    }


@cache
def contracts() -> Mapping[str, Contract]:
    """Every contract by name: hooks and records."""
    return {**_load("hooks"), **_load("records")}


_learned: dict[bytes, Contract] = {}
_ids: dict[int, Contract] = {}
_written: dict[str, int] = {}
# of the whole process, like the files beside this one: what a schema means does not depend on who asks


def learn(contract: Contract) -> None:
    """A schema that another program writes by: its messages can be read from now on."""
    _learned[contract.fingerprint] = contract


def learn_id(schema_id: int, contract: Contract) -> None:
    """The same for an id of the Schema Registry."""
    _ids[schema_id] = contract


def write_with_id(name: str, schema_id: int) -> None:
    """From now on encode() writes the contract of that name in the Schema Registry's framing, with this id."""
    _written[name] = schema_id
    _ids[schema_id] = contracts()[name]


def written_id(name: str) -> int | None:
    """The Schema Registry's id by which the contract is written; None without a registry."""
    return _written.get(name)


def by_id() -> Mapping[int, Contract]:
    """The schemas of the Schema Registry that have been learned."""
    return _ids


def by_fingerprint() -> Mapping[bytes, Contract]:
    """Every contract by fingerprint: the present ones, those of earlier versions, and those that were learned."""
    return ChainMap(_learned, _own())  # type: ignore[arg-type]


@cache
def _own() -> Mapping[bytes, Contract]:
    """The present contracts and those of earlier versions (history/<name>/<n>.avsc)."""
    known = {c.fingerprint: c for c in contracts().values()}
    for path in sorted((HERE / "history").glob("*/*.avsc")):
        old = contract_of(path.parent.name, json.loads(path.read_text()))
        known.setdefault(old.fingerprint, old)
    return known


@cache
def hook_names() -> tuple[str, ...]:
    """The hooks that there are, sorted: one file each in hooks/."""
    return tuple(sorted(p.name.removesuffix(".avsc") for p in (HERE / "hooks").glob("*.avsc")))


@cache
def all_arguments(hook: str) -> tuple[str, ...]:
    """Every keyword argument that a handler of the hook can name, but btrdb."""
    return tuple(f["name"] for f in contracts()[hook].raw["fields"])


@cache
def documented_arguments(hook: str) -> tuple[str, ...]:
    """The keyword arguments that every handler of the hook gets: the contract's fields but those marked when_named."""
    return tuple(f["name"] for f in contracts()[hook].raw["fields"] if not f.get("when_named"))
