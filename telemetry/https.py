"""The HTTP server of a station that has one, with a certificate that may change."""

from __future__ import annotations

from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from telemetry import certificates


def make_server(app: ASGIApp, listen: str, cert: Path | None, key: Path | None) -> uvicorn.Server:
    """Serves at listen (host:port) once it is run; without TLS where there is no cert. Raises ValueError when it is not usable."""
    host, _, port = listen.rpartition(":")
    served = certificates.Served(cert, key) if cert is not None else None
    config = uvicorn.Config(
        app, host=host.strip("[]"), port=int(port), log_config=None, access_log=False, server_header=False,
        ssl_context_factory=(lambda *_: served.context()) if served is not None else None, timeout_graceful_shutdown=5,
    )  # fmt: skip
    return uvicorn.Server(config)
