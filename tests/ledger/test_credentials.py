"""Seal keys come and go; what they sealed stays readable."""

import pytest
from cryptography.fernet import Fernet

from ledger import Ledger
from ledger.credentials import reseal, seal, unseal


@pytest.fixture
def keys() -> tuple[str, str]:
    return Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_an_older_seal_key_can_go_once_everything_is_sealed_anew(
    url: str, ledger: Ledger, keys: tuple[str, str]
) -> None:
    old, new = keys
    first, both, last = (Ledger.open(url, some) for some in ([old], [new, old], [new]))
    with first.write() as session:
        seal(session, first, "alice", "A" * 40)
    with last.read() as session:
        assert unseal(session, last, "alice") is None

    with both.write() as session:
        assert reseal(session, both) == (1, [])

    with last.read() as session:
        assert unseal(session, last, "alice") == "A" * 40
    for one in (first, both, last):
        one.close()


def test_a_key_that_no_seal_key_opens_is_named_and_left(url: str, ledger: Ledger, keys: tuple[str, str]) -> None:
    mine, other = (Ledger.open(url, [key]) for key in keys)
    with mine.write() as session:
        seal(session, mine, "alice", "A" * 40)

    with other.write() as session:
        assert reseal(session, other) == (0, ["alice"])

    with mine.read() as session:
        assert unseal(session, mine, "alice") == "A" * 40
    for one in (mine, other):
        one.close()
