"""The server: TLS, API keys, BTrDB's service and the gateway at one port."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from btrdb.grpcinterface.btrdb_pb2_grpc import add_BTrDBServicer_to_server

from devstack.btrdb.gateway import PREFIX, Gateway
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


class _Authenticated(grpc.ServerInterceptor):
    """Refuses calls without a user's key, in BTrDB's words; event processing's calls are the registry's to judge."""

    def __init__(self, keys: KeyFile) -> None:
        self._keys = keys

        def refuse(_request: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid api key")

        self._refused_unary: Any = grpc.unary_unary_rpc_method_handler(refuse)
        self._refused_stream: Any = grpc.unary_stream_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Passes the call on, or answers it with the refusal."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(PREFIX) or self._known(handler_call_details):
            return handler
        return self._refused_stream if handler.response_streaming else self._refused_unary

    def _known(self, details: Any) -> bool:
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        scheme, _, key = str(given).partition(" ")
        return scheme.lower() == "bearer" and self._keys.user_of(key.strip()) is not None


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
    server = grpc.server(pool, interceptors=[_Authenticated(KeyFile(settings.keys_file))], options=options)
    credentials = grpc.ssl_server_credentials([(settings.key.read_bytes(), settings.cert.read_bytes())])
    try:
        port = server.add_secure_port(f"{settings.address}:{settings.port}", credentials)
    except RuntimeError as error:
        store.close()
        raise OSError(f"cannot listen at {settings.address}:{settings.port}: {error}") from error
    add_BTrDBServicer_to_server(Btrdb(store, f"{settings.address}:{port}"), server)
    if settings.registry is not None:
        server.add_generic_rpc_handlers((Gateway(settings.registry, settings.ca),))
    server.start()
    return Server(settings.address, port, server, store)
