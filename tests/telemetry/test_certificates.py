"""When a certificate ends, as the metric tells it."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client import REGISTRY

from devstack.certificates import make_certificates
from telemetry.certificates import not_after, watch


def test_the_end_of_a_certificate_is_told_and_read_anew(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls", "127.0.0.9")
    watch(made.cert)
    value = REGISTRY.get_sample_value("eventproc_certificate_not_after_seconds", {"certificate": made.cert.name})
    assert value is not None and value > time.time() + 86_400
    made.cert.write_text("broken")
    assert REGISTRY.get_sample_value("eventproc_certificate_not_after_seconds", {"certificate": made.cert.name}) == 0


def test_a_file_that_is_not_there_counts_as_expired(tmp_path: Path) -> None:
    assert not_after(tmp_path / "none.pem") == 0
