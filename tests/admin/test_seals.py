"""eventproc-admin reseal."""

import pytest
from cryptography.fernet import Fernet

from ledger import Ledger
from ledger.credentials import seal
from tests.admin.conftest import call


def test_users_keys_are_sealed_with_the_newest_seal_key(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealing = Ledger.open(ledger.engine.url.render_as_string(), [old])
    with sealing.write() as session:
        seal(session, sealing, "alice", "A" * 40)
    sealing.close()
    monkeypatch.setenv("EVENTPROC_SEAL_KEYS", f"{new},{old}")

    assert "1 sealed anew" in call("reseal")

    monkeypatch.setenv("EVENTPROC_SEAL_KEYS", old)
    assert "alice" in call("reseal", code=1)


def test_without_a_seal_key_it_says_where_one_belongs(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTPROC_SEAL_KEYS", raising=False)

    assert "EVENTPROC_SEAL_KEYS_FILE" in call("reseal", code=2)
