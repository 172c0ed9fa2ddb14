"""Migrations with data in the tables, forward and back, and beside stations of the release before; on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, select, text

from ledger import Ledger, outbox
from ledger.archives import NewArchive, add
from ledger.audit import HANDLER, USER, Act, Actor, note
from ledger.credentials import seal
from ledger.engine import MIGRATIONS
from ledger.reconcile import reconcile
from ledger.redriven import note_redriven
from ledger.sweeper import heartbeat, lead
from schemas.records import Outcome, Upload
from tests.ledger.conftest import RULES, Handler, Queued, claimed, ended, leased, mails

LAST_RELEASE = Path(__file__).parent / "last_release.json"
Rows = dict[str, list[dict[str, Any]]]


def revisions() -> list[str]:
    """Oldest first."""
    return [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]


def migrated(ledger: Ledger, work: Callable[[Config, str], None], revision: str) -> None:
    """To that revision, by alembic itself."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with ledger.engine.execution_options(writing=True).begin() as connection:
        config.attributes["connection"] = connection
        work(config, revision)


def rows(ledger: Ledger) -> Rows:
    """All that is in the tables."""
    found = MetaData()
    with ledger.engine.connect() as connection:
        found.reflect(connection)
        return {
            table.name: sorted((dict(row) for row in connection.execute(select(table)).mappings()), key=str)
            for table in found.sorted_tables
            if table.name != "alembic_version"
        }


def in_common(one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """What both have tables and columns for."""
    tables = one.keys() & other.keys()

    def cut(rows: Rows, against: Rows) -> Rows:
        columns = {table: set(against[table][0]) if against[table] else None for table in tables}
        return {
            table: sorted(
                ({k: v for k, v in row.items() if columns[table] is None or k in columns[table]} for row in rows[table]),  # type: ignore[operator]
                key=str,
            )
            for table in sorted(tables)
        }  # fmt: skip

    return cut(one, other), cut(other, one)


@pytest.fixture
def full(ledger: Ledger, handler: Handler, queued: Queued) -> Ledger:
    """A ledger with something in every table that there was in the first release."""
    first, second, third, *_ = queued(5, handler())
    upload = Upload("c" * 32, "a.csv", 3)
    ended(ledger, leased(ledger, first.run_id), Outcome.SUCCEEDED, text="returned", uploads=(upload,))
    ended(ledger, leased(ledger, second.run_id, nonce="b"), Outcome.FAILED, log="printed")
    claimed(ledger, third.run_id, nonce="c")
    with ledger.write() as session:
        outbox.sent(session, outbox.take(session, "sender", 1, 60.0)[0])
        seal(session, ledger, "alice", "key" * 14)
        add(
            session, ledger,
            NewArchive("r" * 36, "alice", "k" * 40, "a.zip", "a", 1, "d" * 64, ("/a.cfg",), (), "", None, "", None),
        )  # fmt: skip
        note_redriven(session, 3, "alice")
        note(session, Actor("alice", USER), Act.REGISTER, HANDLER, 1)
        heartbeat(session, RULES)
        assert lead(session, "sweeper", "boot", 60.0)
    return ledger


def test_every_step_back_and_forward_again_keeps_what_both_sides_have_room_for(full: Ledger) -> None:
    steps = revisions()
    for revision, work in [(one, command.downgrade) for one in reversed(steps[:-1])] + [
        (one, command.upgrade) for one in steps[1:]
    ]:
        before = rows(full)
        migrated(full, work, revision)
        now, was = in_common(rows(full), before)
        assert now == was, f"{work.__name__} to {revision}"


def test_what_a_ledger_of_the_last_release_held_goes_on_after_the_upgrade(full: Ledger) -> None:
    migrated(full, command.downgrade, str(json.loads(LAST_RELEASE.read_text())["revision"]))

    full.migrate()

    with full.read() as session:
        books = reconcile(session, 0)
    assert books.problems == ()
    assert books.runs == {"succeeded": 1, "failed": 1, "running": 1, "queued": 2}
    assert len(mails(full)) == 1


def test_it_can_be_taken_down_to_nothing_and_made_again(full: Ledger) -> None:
    migrated(full, command.downgrade, "base")
    with full.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}

    full.migrate()

    assert full.unlike() == ""


def test_a_station_of_the_release_before_goes_on_beside_tables_that_are_newer(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    ledger.migrate()

    assert "its tables are of revision 9999" in ledger.unlike()


def test_stations_of_the_last_release_can_go_on_reading_and_writing_these_tables(ledger: Ledger) -> None:
    """They name their columns: none of those may go, and a new one has to fill itself."""
    then = json.loads(LAST_RELEASE.read_text())["tables"]
    with ledger.engine.connect() as connection:
        seen = inspect(connection)
        for table, columns in then.items():
            now = {column["name"]: column for column in seen.get_columns(table)}
            assert columns.keys() <= now.keys(), f"{table} has lost {columns.keys() - now.keys()}"
            for name, nullable in columns.items():
                assert now[name]["nullable"] or not nullable, f"{table}.{name} took NULL"
            for name in now.keys() - columns.keys():
                given = now[name]["nullable"] or now[name]["default"] is not None
                assert given, f"{table}.{name} is new: without a default the release before cannot insert"
        unique = {(t, tuple(i["column_names"])) for t in then for i in seen.get_indexes(t) if i["unique"]}
        unique |= {(t, tuple(u["column_names"])) for t in then for u in seen.get_unique_constraints(t)}
    assert unique <= {(table, tuple(columns)) for table, columns in json.loads(LAST_RELEASE.read_text())["unique"]}
