"""The ingress' certificate, replaced while it serves."""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet

from callers import ApiKeys
from ctingress.accept import Desk
from ctingress.open import Limits
from ctingress.receive import make_app
from ctingress.serve import ServeSettings
from devstack.keys import make_keys
from ledger import Ledger
from objectstore import ObjectStore
from telemetry.https import make_server
from tests.tls_server import ADDRESS, Rotating, free_port, serving, still_answers


def test_a_new_certificate_is_shown_on_new_connections_and_the_old_ones_go_on(tmp_path: Path, ledger: Ledger) -> None:
    rotating, port = Rotating(tmp_path / "tls"), free_port()
    make_keys({"alice": ()}, tmp_path / "keys.json")
    store = ObjectStore(f"file://{tmp_path / 'archives'}")
    desk = Desk(ledger, ApiKeys(tmp_path / "keys.json"), store, Limits(10, 1 << 20, 100), 1 << 20)
    settings = ServeSettings(
        ledger_url="sqlite://", seal_keys=Fernet.generate_key().decode(), archives="file:///none", keys_file=tmp_path / "keys.json",
        listen=f"{ADDRESS}:{port}", cert=rotating.files.cert, key=rotating.files.key,
    )  # fmt: skip
    with (
        serving(make_server(make_app(desk), settings.listen, settings.cert, settings.key)),
        rotating.connected(port) as before,
    ):
        first, second = rotating.shown(port), rotating.rotate()

        assert rotating.shown(port) == second != first
        assert still_answers(before, "/none", 404)

        rotating.files.key.write_text("broken")
        assert rotating.shown(port) == second
