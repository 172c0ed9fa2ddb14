"""A PostgreSQL that takes no writes for a while (a standby after a failover) is waited for, and written to when it takes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, make_url, text

from ledger import Ledger
from schemas.errors import TryLater

WRITE = text("INSERT INTO leader (name, boot_id, until_ms) VALUES ('one', 'b', 0)")


@pytest.fixture
def ledger(postgresql_url: str) -> Iterator[Ledger]:
    opened = Ledger.open(postgresql_url, [Fernet.generate_key().decode()])
    opened.migrate()
    yield opened
    opened.close()


def told(url: str, *commands: str) -> None:
    """An operator says this to the server."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for command in commands:
            connection.execute(text(command))
    engine.dispose()


def test_a_database_that_has_become_read_only_is_for_later_and_taken_up_when_it_is_the_primary_again(
    ledger: Ledger, postgresql_url: str
) -> None:
    database = make_url(postgresql_url).database
    with ledger.write() as session:
        session.execute(text("SELECT 1"))
    told(
        postgresql_url,
        f"ALTER DATABASE {database} SET default_transaction_read_only = on",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()",
    )

    with pytest.raises(TryLater, match="read-only transaction"), ledger.write() as session:
        session.execute(WRITE)
    with ledger.read() as session:
        assert session.scalar(text("SELECT count(*) FROM leader")) == 0

    told(
        postgresql_url,
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {database} RESET default_transaction_read_only",
    )
    with (
        pytest.raises(TryLater),
        ledger.write() as session,
    ):  # the connection is still one to the standby, and is the last
        session.execute(WRITE)
    with ledger.write() as session:
        session.execute(WRITE)


def test_what_is_wrong_inside_of_the_server_is_for_later(ledger: Ledger) -> None:
    raising = "DO $$ BEGIN RAISE EXCEPTION 'cache lookup failed' USING ERRCODE = 'XX000'; END $$"
    with pytest.raises(TryLater, match="cache lookup failed"), ledger.write() as session:
        session.execute(text(raising))
