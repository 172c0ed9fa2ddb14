"""Writers of one SQLite file take turns; who cannot have it in time is told to try later."""

import threading
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from ledger import Ledger, engine
from schemas.errors import TryLater

DELETE = text("DELETE FROM leader")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def test_a_writer_waits_for_the_one_before_and_then_goes_on(ledger: Ledger) -> None:
    written = threading.Event()

    def write() -> None:
        with ledger.write() as session:
            session.execute(DELETE)
        written.set()

    other = threading.Thread(target=write)
    with ledger.write() as session:
        session.execute(text("INSERT INTO leader (name, boot_id, until_ms) VALUES ('one', 'b', 0)"))
        other.start()
        assert not written.wait(0.05)

    other.join(engine.BUSY_S + 5)
    with ledger.read() as session:
        assert written.is_set() and session.scalar(text("SELECT count(*) FROM leader")) == 0


def test_a_writer_that_cannot_have_it_in_time_is_told_so_and_can_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_S", 0.02)

    with ledger.write() as one:
        one.execute(DELETE)
        with pytest.raises(TryLater, match="locked"), ledger.write() as other:
            other.execute(DELETE)

    with ledger.write() as session:
        session.execute(DELETE)


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    nowhere = Ledger.open(f"sqlite:///{tmp_path / 'none' / 'ledger.db'}", [Fernet.generate_key().decode()])

    with pytest.raises(TryLater, match="unable to open"), nowhere.write() as session:
        session.execute(DELETE)
