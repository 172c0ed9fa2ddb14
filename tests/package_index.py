"""A package index (PEP 503) on a loopback address, with wheels made of a few lines."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from executor.index import Index, index_of


def wheel(name: str, version: str, files: Mapping[str, str], requires: Sequence[str] = ()) -> bytes:
    """A pure wheel (PEP 427)."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    content = {
        **files,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in content.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text.encode())}\n"
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return made.getvalue()


@dataclass
class PackageIndex:
    """files: name -> {file name: bytes}; asked: the paths that were; broken: answers 503 to everything."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False

    def add(self, name: str, version: str, files: Mapping[str, str], requires: Sequence[str] = ()) -> None:
        """A wheel."""
        self.add_file(name, f"{name}-{version}-py3-none-any.whl", wheel(name, version, files, requires))

    def add_file(self, name: str, file_name: str, content: bytes) -> None:
        """Any file."""
        self.files.setdefault(name, {})[file_name] = content

    def of(self) -> Index:
        """As an executor's setting names it."""
        return index_of(self.url, "", None)

    def answer(self, path: str) -> bytes | None:
        """The page or file there."""
        parts = [part for part in path.split("/") if part]
        if parts[:1] == ["simple"] and len(parts) == 2 and parts[1] in self.files:
            links = "".join(f'<a href="/files/{parts[1]}/{file}">{file}</a>\n' for file in self.files[parts[1]])
            return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        if parts[:1] == ["files"] and len(parts) == 3:
            return self.files.get(parts[1], {}).get(parts[2])
        return None


@contextmanager
def serving() -> Iterator[PackageIndex]:
    """One that answers until the end of the with."""
    index = PackageIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            body = None if index.broken else index.answer(self.path)
            self.send_response(503 if index.broken else 404 if body is None else 200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
