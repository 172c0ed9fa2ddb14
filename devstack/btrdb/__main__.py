"""Runs the BTrDB development server; its options come from the environment (DEVSTACK_BTRDB_*)."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from devstack.btrdb.serve import Settings, serve
from telemetry import traces


def _settings() -> Settings:
    def given(name: str) -> str:
        try:
            return os.environ[f"DEVSTACK_BTRDB_{name}"]
        except KeyError:
            raise SystemExit(f"DEVSTACK_BTRDB_{name} is not set; devstack/stack.py shows what each holds") from None

    paths = {name.lower(): Path(given(name)) for name in ("DATA", "CERT", "KEY", "CA", "KEYS_FILE")}
    registry = os.environ.get("DEVSTACK_BTRDB_REGISTRY")
    return Settings(address=given("ADDRESS"), port=int(given("PORT")), registry=registry, **paths)


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    traces.setup("btrdb")
    server = serve(_settings())
    print(f"BTrDB development server at {server.address}:{server.port}", flush=True)
    stop.wait()
    server.stop()
    traces.close()


if __name__ == "__main__":
    main()
