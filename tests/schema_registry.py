"""A Schema Registry over HTTP that answers as Confluent's does, as far as we ask it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers as Confluent's does; schemas: id -> JSON; broken: answers 500."""

    schemas: ClassVar[dict[int, str]] = {}
    asked: ClassVar[list[str]] = []
    broken = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.schemas.get(int(self.path.rpartition("/")[2]))
        if self.broken:
            self._answer(500, {"error_code": 50001, "message": "Error in the backend data store"})
        elif found is None:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            self._answer(200, {"schema": found})

    def do_POST(self) -> None:
        schema = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
        if self.path.startswith("/subjects/incompatible"):
            self._answer(409, {"error_code": 409, "message": "Schema being registered is incompatible"})
            return
        number = next((i for i, s in self.schemas.items() if s == schema), len(self.schemas) + 1)
        self.schemas[number] = schema
        self._answer(200, {"id": number})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[str]:
    """An empty one; gives its URL."""
    Registry.schemas, Registry.asked, Registry.broken = {}, [], False
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
