"""Is it alive, is it ready: a small HTTP server with /metrics, /healthz and /readyz."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from telemetry import metrics


class Health:
    """What a process knows of itself. Liveness is the age of the main loop's last turn; dependencies show in readiness only."""

    def __init__(self, station: str, max_turn_age_s: float = 60, needs: Sequence[str] = ()) -> None:
        """station: the process's name; max_turn_age_s: a main loop that has not turned for longer counts as stuck.

        needs: dependencies without which it is not ready, from the beginning on.
        """
        self.station = station
        self._max_turn_age_s = max_turn_age_s
        self._last_turn = time.monotonic()
        self._checks: dict[str, tuple[bool, str]] = dict.fromkeys(needs, (False, "not reached yet"))
        for name in needs:
            metrics.ready.labels(station=station, check=name).set(0)
        self._stopping = False
        self._changing = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        metrics.last_turn_age_seconds.set_function(self.age)

    def limit(self, max_turn_age_s: float) -> None:
        """From now on a main loop that has not turned for longer counts as stuck."""
        self._max_turn_age_s = max_turn_age_s

    def turn(self) -> None:
        """The main loop has turned; waiting for a dependency or for a running child is a turn. Costs a clock reading."""
        self._last_turn = time.monotonic()

    def age(self) -> float:
        """Seconds since the last turn, or since the beginning when there was none."""
        return time.monotonic() - self._last_turn

    def ready(self, name: str, ok: bool, why: str = "") -> None:
        """The dependency of that name answers (ok), or does not and why. Any thread; the last word counts."""
        if self._checks.get(name) != (ok, why):
            with self._changing:
                self._checks = {**self._checks, name: (ok, why)}  # a new one, so that readers need no lock
                metrics.ready.labels(station=self.station, check=name).set(ok)

    def stopping(self) -> None:
        """The process was told to end: not ready from now on, so that nobody new is sent to it. For a signal's handler, too.

        eventproc_ready does not change: an executor may let its runs go on for an hour, and nothing is wrong with it.
        """
        self._stopping = True

    def live_answer(self) -> tuple[int, dict[str, Any]]:
        """What /healthz says: 200 or 503, and a body for JSON."""
        age = self.age()
        alive = age <= self._max_turn_age_s
        body = {
            "station": self.station,
            "alive": alive,
            "last_turn_age_s": round(age, 3),
            "limit_s": self._max_turn_age_s,
        }
        return (200 if alive else 503), body

    def ready_answer(self) -> tuple[int, dict[str, Any]]:
        """What /readyz says: 200 when something has reported and all of it is well, else 503; and a body for JSON."""
        checks = self._checks
        if self._stopping:
            checks = {**checks, "stopping": (False, "told to end")}
        is_ready = bool(checks) and all(ok for ok, _ in checks.values())
        body = {
            "station": self.station,
            "ready": is_ready,
            "checks": {name: {"ok": ok, "why": why} for name, (ok, why) in sorted(checks.items())},
        }
        return (200 if is_ready else 503), body

    def serve(self, host: str, port: int) -> int:
        """Serves in a thread of its own until close(); returns the port, a free one for 0. Raises OSError when it is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server_class = type("_Server", (ThreadingHTTPServer,), {"address_family": family, "daemon_threads": True})
        self._server = server_class((host, port), _handler_of(self))
        assert self._server is not None
        threading.Thread(target=self._server.serve_forever, name="telemetry", daemon=True).start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops serving; blocks until the port is free."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _handler_of(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing does not keep a thread

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, kind, encode(REGISTRY))
            elif path == "/healthz":
                self._answer_json(*health.live_answer())
            elif path == "/readyz":
                self._answer_json(*health.ready_answer())
            else:
                self._answer_json(404, {"error": f"no {path} here; there are /metrics, /healthz and /readyz"})

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def _answer_json(self, code: int, body: dict[str, Any]) -> None:
            self._answer(code, "application/json; charset=utf-8", json.dumps(body, ensure_ascii=False).encode() + b"\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every few seconds and say nothing new."""

    return Handler
