"""A server's certificate, read anew when its files change; and when it ends, as a metric: an alert tells before users do."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import structlog
from cryptography import x509

from telemetry import metrics

log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class Material:
    """chain, key: PEM; context: of a server that shows them; not_after: of the server's own certificate, seconds since the epoch."""

    chain: bytes
    key: bytes = field(repr=False)
    context: ssl.SSLContext
    not_after: float


class Served:
    """The certificate that a server shows on new connections; what is connected goes on. Safe for many threads.

    No thread looks for changes: each new connection looks at the files, and each scrape of the metrics. Files that are not usable
    (half written, the key of another certificate) change nothing: the certificate before is shown, the log says why, and the metric
    eventproc_certificate_unusable is 1 until they are.
    """

    def __init__(self, cert: Path, key: Path | None = None) -> None:
        """PEM files: cert has the chain, the server's own first; key: None when cert has the key, too.

        Raises ValueError naming the file, and what is wrong with it.
        """
        self._cert, self._key = cert, key or cert
        self._lock = Lock()
        self._seen = self._look()
        self._material = _read(self._cert, self._key)
        self._unusable = metrics.certificate_unusable.labels(certificate=cert.name)
        self._unusable.set(0)
        not_after = metrics.certificate_not_after_seconds.labels(certificate=cert.name)
        not_after.set_function(lambda: self.material().not_after)

    def material(self) -> Material:
        """What is to be shown now; the same object until it changes."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen  # noted before the files are read: what changes meanwhile is seen the next time
                self._renew()
            return self._material

    def context(self) -> ssl.SSLContext:
        """For a server's listener; it chooses on each connection what is to be shown then."""

        def choose(connection: ssl.SSLObject, _name: str | None, _listener: ssl.SSLContext) -> None:
            connection.context = self.material().context

        listener = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        listener.sni_callback = choose  # called for clients that name no server, too
        return listener

    def _renew(self) -> None:
        try:
            self._material = _read(self._cert, self._key)
        except ValueError as error:
            self._unusable.set(1)
            log.error("the new certificate is not usable, the one before is served", reason=str(error))
        else:
            self._unusable.set(0)
            ends = datetime.fromtimestamp(self._material.not_after, UTC).isoformat()
            log.info("the certificate has been read anew", file=str(self._cert), ends=ends)

    def _look(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for file in (self._cert, self._key):
            try:
                stat = file.stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append(None)
        return found


def _read(cert: Path, key: Path) -> Material:
    """Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        chain, private = cert.read_bytes(), key.read_bytes()
        not_after = x509.load_pem_x509_certificate(chain).not_valid_after_utc.timestamp()
        context.load_cert_chain(cert, key, password="")  # none is asked for at the terminal
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        raise ValueError(
            f"{cert} and {key} should be a certificate chain and its key without a password, as PEM: {error}"
        ) from error
    return Material(chain, private, context, not_after)
