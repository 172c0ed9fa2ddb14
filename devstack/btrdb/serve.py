"""The server: TLS, API keys, BTrDB's service and the gateway at one port."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from btrdb.grpcinterface.btrdb_pb2_grpc import add_BTrDBServicer_to_server

from devstack.btrdb.gateway import Gateway
from devstack.btrdb.service import Btrdb
from devstack.btrdb.store import Store
from devstack.keys import KeyFile

THREADS = 32


@dataclass(frozen=True)
class Settings:
    """Where to listen (port 0: a free one), where data lies, TLS files, the users' keys file; registry: host:port or None."""

    address: str
    port: int
    data: Path
    cert: Path
    key: Path
    ca: Path
    keys_file: Path
    registry: str | None = None


@dataclass(frozen=True)
class Server:
    """A server that runs at address:port."""

    address: str
    port: int
    _server: grpc.Server
    _store: Store

    def stop(self, grace_s: float = 1.0) -> None:
        """Takes no more calls; blocks until those under way have ended, grace_s at most."""
        self._server.stop(grace_s).wait()
        self._store.close()


def serve(settings: Settings) -> Server:
    """Starts the server and returns it running. Raises OSError when the address is taken."""
    store = Store(settings.data)
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc")
    server = grpc.server(pool, options=options)
    credentials = grpc.ssl_server_credentials([(settings.key.read_bytes(), settings.cert.read_bytes())])
    try:
        port = server.add_secure_port(f"{settings.address}:{settings.port}", credentials)
    except RuntimeError as error:
        store.close()
        raise OSError(f"cannot listen at {settings.address}:{settings.port}: {error}") from error
    add_BTrDBServicer_to_server(Btrdb(store, f"{settings.address}:{port}", KeyFile(settings.keys_file)), server)
    if settings.registry is not None:
        server.add_generic_rpc_handlers((Gateway(settings.registry, settings.ca),))
    server.start()
    return Server(settings.address, port, server, store)
