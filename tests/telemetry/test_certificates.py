"""A server's certificate while its files change, and when it ends, as the metrics tell it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from telemetry.certificates import Served
from tests.tls_server import Rotating

DAY_S = 86_400


@pytest.fixture
def rotating(tmp_path: Path) -> Rotating:
    return Rotating(tmp_path / "tls")


@pytest.fixture
def served(rotating: Rotating) -> Served:
    return Served(rotating.files.cert, rotating.files.key)


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"eventproc_certificate_{name}", {"certificate": "tls.crt"}) or 0.0


def test_what_is_served_changes_with_its_files_and_only_then(rotating: Rotating, served: Served) -> None:
    first = served.material()
    assert served.material() is first

    rotating.rotate()

    second = served.material()
    assert second is not first
    assert (second.chain, second.key) == (rotating.files.cert.read_bytes(), rotating.files.key.read_bytes())
    assert served.material() is second


@pytest.mark.parametrize("broken", ["half", "another's key", "none", "not PEM"])
def test_files_that_are_not_usable_keep_the_certificate_before_until_they_are(
    rotating: Rotating, served: Served, broken: str
) -> None:
    first, old_key = served.material(), rotating.files.key.read_bytes()
    rotating.rotate(days=90)
    good = rotating.files.cert.read_bytes(), rotating.files.key.read_bytes()
    if broken == "another's key":
        rotating.files.key.write_bytes(old_key)
    elif broken == "none":
        rotating.files.cert.unlink()
    else:
        rotating.files.cert.write_bytes(good[0][: len(good[0]) // 2] if broken == "half" else b"\xff\x00")

    assert served.material() is first
    assert metric("unusable") == 1
    assert metric("not_after_seconds") == first.not_after

    rotating.files.cert.write_bytes(good[0])
    rotating.files.key.write_bytes(good[1])

    assert served.material().chain == good[0]
    assert metric("unusable") == 0


def test_a_scrape_alone_notices_a_new_certificate(rotating: Rotating, served: Served) -> None:
    assert metric("not_after_seconds") == served.material().not_after

    rotating.rotate(days=90)

    assert metric("not_after_seconds") > time.time() + 80 * DAY_S


def test_a_server_does_not_begin_with_files_that_are_not_usable(rotating: Rotating) -> None:
    rotating.files.key.write_text("broken")

    with pytest.raises(ValueError, match=r"tls\.crt and .*tls\.key should be a certificate chain and its key"):
        Served(rotating.files.cert, rotating.files.key)
