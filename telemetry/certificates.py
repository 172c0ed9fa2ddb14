"""When a certificate ends, as a metric: an alert tells before users do."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from telemetry import metrics


def watch(file: Path | None) -> None:
    """From now on the metric tells when the first certificate in the PEM file ends; the file is read at each scrape.

    file: None for a process without TLS. A file that cannot be read tells 0, which every alert takes for expired.
    """
    if file is not None:
        metrics.certificate_not_after_seconds.labels(certificate=file.name).set_function(lambda: not_after(file))


def not_after(file: Path) -> float:
    """Seconds since the epoch at which the first certificate in the file ends; 0 when it cannot be read."""
    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0
