"""A BTrDB development server per module, and the public client connected to it over TLS with a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import btrdb
import pytest

from tests.btrdb_server import Running, serving


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the module."""
    with serving(tmp_path_factory.mktemp("btrdb")) as running:
        yield running


@pytest.fixture(scope="module")
def conn(running: Running) -> Any:
    """The public client, connected."""
    return btrdb.connect(running.endpoint, apikey=running.key)


@pytest.fixture
def stream(conn: Any, request: pytest.FixtureRequest) -> Any:
    """A new empty stream."""
    name = request.node.name
    return conn.create(uuid4(), f"tests/{name}"[:256], tags={"name": "s", "unit": "A"}, annotations={"ps": "S"})
