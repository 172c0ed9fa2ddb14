"""The one way out of a sandbox in which pip runs: an HTTP proxy that goes to the package index and nowhere else."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger()

ENDPOINT = "packages.internal:3128"
"""As pip sees it: the sandbox's hosts file names it."""

HEAD_BYTES = 16 * 1024
CONNECTIONS = 16
TIMEOUT_S = 30.0
CHUNK = 256 * 1024


class IndexProxy:
    """Tunnels (CONNECT) and plain requests to the hosts allowed. A thread a connection: installs are rare."""

    def __init__(self, hosts: frozenset[tuple[str, int]]) -> None:
        """hosts: (name, port) of the index and of where its files are."""
        self._hosts = hosts
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self.away = ""
        """Why a host could not be reached, when one could not."""

    def start(self) -> None:
        """Nothing to start: each listener has its thread."""

    def serve(self, listener: socket.socket) -> Callable[[], None]:
        """Takes over a sandbox's listener; what comes back ends it, and returns at once."""
        listener.setblocking(True)
        ended, tell = socket.socketpair()
        threading.Thread(target=self._listen, args=(listener, ended), name="index", daemon=True).start()
        return tell.close

    def close(self) -> None:
        """Each listener ends with its sandbox."""

    def _listen(self, listener: socket.socket, ended: socket.socket) -> None:
        with listener, ended:
            while ended not in select.select([listener, ended], [], [])[0]:
                inner, _ = listener.accept()
                if self._free.acquire(timeout=TIMEOUT_S):
                    threading.Thread(target=self._connection, args=(inner, ended), name="index", daemon=True).start()
                else:
                    inner.close()

    def _connection(self, inner: socket.socket, ended: socket.socket) -> None:
        try:
            with inner, contextlib.suppress(OSError, ValueError):
                inner.settimeout(TIMEOUT_S)
                self._proxy(inner, ended)
        finally:
            self._free.release()

    def _proxy(self, inner: socket.socket, ended: socket.socket) -> None:
        head, rest = _head(inner)
        lines = head.split(b"\r\n")
        method, target, version = lines[0].decode("ascii").split(" ", 2)
        tunnel = method == "CONNECT"
        address = urlsplit(f"//{target}" if tunnel else target)
        host = ((address.hostname or "").lower(), address.port or 80)
        if host not in self._hosts or (not tunnel and method not in ("GET", "HEAD")):
            self.away = f"{host[0][:200]}:{host[1]} is not among EXECUTOR_INDEX_HOSTS"
            log.warning("pip asked for a host that is not the index", host=host[0][:200], port=host[1])
            inner.sendall(b"HTTP/1.1 403 Not the package index\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            outer = socket.create_connection(host, TIMEOUT_S)
        except OSError as error:
            self.away = f"{host[0]}:{host[1]}: {error}"
            inner.sendall(b"HTTP/1.1 502 The package index is away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with outer:
            if tunnel:
                inner.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                outer.sendall(rest)
            else:
                path = (address.path or "/") + (f"?{address.query}" if address.query else "")
                kept = [one for one in lines[1:] if not one.lower().startswith((b"connection:", b"proxy-"))]
                first = f"{method} {path} {version}".encode("ascii")
                outer.sendall(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]))
            _copy(inner, outer, ended)


def _head(inner: socket.socket) -> tuple[bytes, bytes]:
    """A request's head without its empty line, and what came behind it. Raises ValueError when it is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = inner.recv(4096)
        data += more
        if not more or len(data) > HEAD_BYTES:
            raise ValueError("no request")
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _copy(inner: socket.socket, outer: socket.socket, ended: socket.socket) -> None:
    """Both ways until one side ends, nothing moves for long, or the sandbox is gone."""
    outer.settimeout(TIMEOUT_S)
    while True:
        ready = select.select([inner, outer, ended], [], [], TIMEOUT_S)[0]
        if not ready or ended in ready:
            return
        for source in ready:
            data = source.recv(CHUNK)
            if not data:
                return
            (outer if source is inner else inner).sendall(data)
