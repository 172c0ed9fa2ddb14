"""What tests of TLS servers share: which certificate is shown on a new connection, another one in its place, a server in a thread."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from devstack.certificates import Authority, Certificates
from tests.secure_kafka import free_ports

ADDRESS = "127.0.0.1"


class Rotating:
    """A certificate and its key in files, signed by a CA of its own, to be replaced while they are served."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = Authority("test CA")
        self.files = Certificates(folder / "ca.pem", folder / "tls.crt", folder / "tls.key")
        self.files.ca.write_bytes(self._authority.pem)
        self.rotate()

    def rotate(self, days: float = 30) -> str:
        """Another certificate and key in place; its fingerprint."""
        cert, key = self._authority.issue(ADDRESS, [ADDRESS], days=days)
        for file, body in ((self.files.key, key), (self.files.cert, cert)):
            fresh = file.with_suffix(".new")
            fresh.write_bytes(body)
            fresh.replace(file)
        return hashlib.sha256(x509.load_pem_x509_certificate(cert).public_bytes(Encoding.DER)).hexdigest()

    def shown(self, port: int) -> str:
        """The fingerprint of what is shown on a new connection, after it has been checked as a client does."""
        with self.connected(port) as connection:
            return fingerprint(connection)

    @contextlib.contextmanager
    def connected(self, port: int) -> Iterator[ssl.SSLSocket]:
        """A connection that stays."""
        context = ssl.create_default_context(cafile=str(self.files.ca))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((ADDRESS, port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=ADDRESS) as connection,
        ):
            yield connection


def fingerprint(connection: ssl.SSLSocket) -> str:
    """Of the certificate that it was shown."""
    return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()


def still_answers(connection: ssl.SSLSocket, path: str, status: int) -> bool:
    """Whether an HTTP server answers this connection with that status."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode())
    return connection.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())


@contextlib.contextmanager
def serving(server: uvicorn.Server) -> Iterator[None]:
    """Runs it in a thread until the end of the block."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        thread.join(0.01)
    yield
    server.should_exit = True
    thread.join(10)


def free_port() -> int:
    """At ADDRESS."""
    return free_ports(ADDRESS, 1)[0]
