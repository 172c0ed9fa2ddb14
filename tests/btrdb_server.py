"""A BTrDB development server over TLS, for tests of several folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
