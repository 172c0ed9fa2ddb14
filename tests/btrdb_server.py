"""A BTrDB development server over TLS, for tests of several folders."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


def limit_key(running: Running, user: str, collections: list[str]) -> str:
    """Adds a user whose key sees these collections only; returns the key."""
    file = running.settings.keys_file
    own = make_keys({user: ()}, file.with_name("limited.json"))
    entries = json.loads(file.read_text())["keys"]
    limited = json.loads(file.with_name("limited.json").read_text())["keys"]
    entries += [{**entry, "collections": collections} for entry in limited]
    file.write_text(json.dumps({"keys": entries}))
    return own[user]


def start(folder: Path, registry: str | None = None) -> Running:
    """A server with its data in folder."""
    address = free_address(4411)
    tls = make_certificates(folder / "tls", address)
    keys = make_keys({"alice": ()}, folder / "keys.json")
    settings = Settings(address, 4411, folder / "data", tls.cert, tls.key, tls.ca, folder / "keys.json", registry)
    return Running(serve(settings), settings, keys["alice"])


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Running]:
    """A server with its data in folder, which the public client trusts meanwhile."""
    with pytest.MonkeyPatch.context() as env:
        running = start(folder)
        env.setenv("BTRDB_CA_BUNDLE", str(running.settings.ca))
        yield running
        running.server.stop()
