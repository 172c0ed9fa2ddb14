"""A BTrDB development server per module, and the public client connected to it over TLS with a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import btrdb
import pytest

from devstack.addresses import free_address
from devstack.btrdb.serve import Server, Settings, serve
from devstack.certificates import make_certificates
from devstack.keys import make_keys


@dataclass
class Running:
    """A server, how it was started, and alice's key."""

    server: Server
    settings: Settings
    key: str

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"{self.server.address}:{self.server.port}"


def start(folder: Path, registry: str | None = None) -> Running:
    """A server with its data in folder."""
    address = free_address(4411)
    tls = make_certificates(folder / "tls", address)
    keys = make_keys({"alice": ()}, folder / "keys.json")
    settings = Settings(address, 4411, folder / "data", tls.cert, tls.key, tls.ca, folder / "keys.json", registry)
    return Running(serve(settings), settings, keys["alice"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the module."""
    with pytest.MonkeyPatch.context() as env:
        running = start(tmp_path_factory.mktemp("btrdb"))
        env.setenv("BTRDB_CA_BUNDLE", str(running.settings.ca))
        yield running
        running.server.stop()


@pytest.fixture(scope="module")
def conn(running: Running) -> Any:
    """The public client, connected."""
    return btrdb.connect(running.endpoint, apikey=running.key)


@pytest.fixture
def stream(conn: Any, request: pytest.FixtureRequest) -> Any:
    """A new empty stream."""
    name = request.node.name
    return conn.create(uuid4(), f"tests/{name}"[:256], tags={"name": "s", "unit": "A"}, annotations={"ps": "S"})
