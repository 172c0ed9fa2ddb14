"""Contracts evolve: what was written once can be read for ever."""

import io
import json
from pathlib import Path

import fastavro
import pytest
from fastavro.utils import generate_many

import schemas.contracts
from schemas.contracts import Contract, contract_of, contracts

HISTORY = Path(schemas.contracts.__file__).parent / "history"


def versions(name: str) -> list[Contract]:
    paths = sorted((HISTORY / name).glob("*.avsc"), key=lambda path: int(path.stem))
    return [contract_of(name, json.loads(path.read_text())) for path in paths]


@pytest.mark.parametrize("name", sorted(contracts()))
def test_the_present_contract_is_the_last_of_its_history(name: str) -> None:
    # a change to an .avsc goes with a new history/<name>/<n>.avsc, so that the next test holds it to all before it
    assert versions(name)[-1].fingerprint == contracts()[name].fingerprint


@pytest.mark.parametrize("name", sorted(contracts()))
def test_what_any_version_wrote_every_version_reads(name: str) -> None:
    # earlier ones too: stations of the release before read what new ones write while an upgrade rolls
    known = versions(name)
    for writer in known:
        for record in generate_many(writer.parsed, 20):
            out = io.BytesIO()
            fastavro.schemaless_writer(out, writer.parsed, record)
            for reader in known:
                assert fastavro.schemaless_reader(io.BytesIO(out.getvalue()), writer.parsed, reader.parsed) is not None
