"""The database behind the ledger: transactions, its clock, its migrations. SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy import Connection, Engine, create_engine, event, exc, text
from sqlalchemy.orm import Session

from faults import point
from schemas.errors import TryLater

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_S = 5.0
AGAIN_S = 0.001
"""Between attempts to be the one who writes to SQLite."""
PATIENCE = {
    "connect_timeout": 5,
    # a server whose machine has vanished says nothing more: without these a call hangs for a quarter of an hour, and the loop
    # with it (libpq, "TCP keepalive" settings; tcp_user_timeout in ms)
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
READ_ONLY = "25006"  # read_only_sql_transaction
HEALS = ("25", "53", "57", "XX")
"""Classes of SQLSTATE (PostgreSQL, appendix A) that time or an operator heals: the transaction's state (read-only after a failover),
resources, an intervention, something inside of it."""
MIGRATION_LOCK = 6_110_415  # any number, the same in every process (pg_advisory_xact_lock)

_NOW = {
    # SQLite's 'now' stands still within a statement; strftime has milliseconds (sqlite.org/lang_datefunc.html)
    "sqlite": text(
        "SELECT CAST(strftime('%s','now') AS INTEGER) * 1000 + CAST(substr(strftime('%f','now'), 4) AS INTEGER)"
    ),
    "postgresql": text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"),
}


class NotAllowed(TryLater):
    """The database does not let us: our role lacks a right, which somebody may give it."""


class Ledger:
    """The book of record. Safe for many threads; a transaction belongs to one."""

    def __init__(self, engine: Engine, seals: MultiFernet | None) -> None:
        self.engine = engine
        self._writing = engine.execution_options(writing=True)
        self._seals = seals

    @classmethod
    def open(cls, url: str, seal_keys: Sequence[str] = ()) -> Ledger:
        """The ledger at 'sqlite:////path' or 'postgresql+psycopg://...'; does not connect yet.

        seal_keys: Fernet keys, newest first; only who seals or unseals credentials needs them. Raises ValueError for a bad one.
        """
        if url.startswith("sqlite"):
            engine = create_engine(
                url, pool_size=8, max_overflow=24, connect_args={"timeout": BUSY_S, "check_same_thread": False}
            )
            event.listen(engine, "connect", _sqlite_connect)
            event.listen(engine, "begin", _sqlite_begin)
        else:
            engine = create_engine(url, pool_size=8, max_overflow=24, pool_pre_ping=True, connect_args=dict(PATIENCE))
        seals = MultiFernet([Fernet(key.strip()) for key in seal_keys]) if seal_keys else None
        return cls(engine, seals)

    @property
    def seals(self) -> MultiFernet:
        """What seals and unseals credentials; raises RuntimeError when the ledger was opened without keys."""
        if self._seals is None:
            raise RuntimeError(
                "this ledger was opened without seal keys; set EVENTPROC_SEAL_KEYS or EVENTPROC_SEAL_KEYS_FILE"
            )
        return self._seals

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """One writing transaction, committed at the end, rolled back by an exception. Raises TryLater (busy, away)."""
        with self._consequences(), Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session
            point("ledger.before_commit")
        point("ledger.after_commit")

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """One reading transaction. Raises TryLater."""
        with self._consequences(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Brings the tables to the present version; several processes may do so at once. Blocks; raises TryLater.

        Tables that a later release has made are left as they are: its migrations leave the release before it at work. A role that
        may not change tables waits in this way for who may: NotAllowed.
        """
        with self._consequences(), self._migrating() as config:
            has = MigrationContext.configure(config.attributes["connection"]).get_current_revision()
            if has == _scripts().get_current_head() or (has is not None and has not in _revisions()):
                return
            try:
                command.upgrade(config, "head")
            except exc.ProgrammingError as error:
                if not _lacks_a_right(error):
                    raise
                of = f"are of revision {has}" if has else "are not there"
                raise NotAllowed(
                    f"ledger: its tables {of}, and this role may not change them; eventproc-admin migrate does ({error.orig})"
                ) from error

    def migrate_back(self, revision: str) -> list[str]:
        """Takes the tables back to that revision, with what later ones have noted; the steps, newest first, in words.

        No station of a release that has a later one may run. Raises ValueError when it is none that the tables have passed; TryLater.
        """
        with self._consequences(), self._migrating() as config:
            has = MigrationContext.configure(config.attributes["connection"]).get_current_revision()
            passed = [one.revision for one in _scripts().iterate_revisions(has, "base")] if has in _revisions() else []
            if revision not in passed:
                raise ValueError(
                    f"{revision!r} is none of those that these tables have passed: {', '.join(passed) or 'none'}"
                )
            steps = [f"{one.revision}: {one.doc}" for one in _scripts().iterate_revisions(has, revision)]
            command.downgrade(config, revision)
        return steps

    @contextlib.contextmanager
    def _migrating(self) -> Iterator[Config]:
        """Alembic's config with a connection that nobody else migrates with; committed at the end."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._writing.begin() as connection:
            alone_in_migrating(connection)
            config.attributes["connection"] = connection
            yield config

    def unlike(self) -> str:
        """Why the tables are not those of this release, in words; '' when they are. Makes nothing. Raises TryLater."""
        database = self.engine.url.database
        if self.engine.dialect.name == "sqlite" and database and not Path(database).exists():
            return f"there is no file {database}"
        with self._consequences(), self.engine.connect() as connection:
            has = MigrationContext.configure(connection).get_current_revision()
        wants = _scripts().get_current_head()
        if has is None:
            return "there are no tables in it"
        return "" if has == wants else f"its tables are of revision {has}, not of {wants}: another release's"

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _consequences(self) -> Iterator[None]:
        try:
            yield
        except exc.IntegrityError as error:
            if _state(error) == "23505":
                raise TryLater("ledger: somebody else wrote the same just now") from error
            raise
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise TryLater(f"ledger: {getattr(error, 'orig', None) or error}".strip()) from error
        except exc.DBAPIError as error:
            if _state(error) == READ_ONLY:
                # what was the primary, and is a standby after a failover: its connections are sound, and would be for ever
                self.engine.dispose()
            if error.connection_invalidated or isinstance(error, exc.InternalError) or _state(error)[:2] in HEALS:
                raise TryLater(f"ledger: {error.orig}".strip()) from error
            if _lacks_a_right(error):
                raise NotAllowed(f"ledger: {error.orig}") from error
            raise


def alone_in_migrating(connection: Connection) -> None:
    """Waits until nobody else changes the tables, or the rights on them; until the transaction ends nobody does."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS))


def _revisions() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def now_ms(session: Session) -> int:
    """The database's clock, ms since the epoch."""
    return int(session.scalar(_NOW[session.get_bind().dialect.name]) or 0)


def storable(text: str) -> str:
    """The text as every database takes it: PostgreSQL has no NUL in one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def is_postgresql(session: Session) -> bool:
    """Whether rows must be locked one by one; in SQLite a writing transaction is alone."""
    return session.get_bind().dialect.name == "postgresql"


def _sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # NORMAL: a commit outlives any process; only a power cut can take the last ones, and what was lost with them is still in
    # Kafka's retention. FULL costs an fsync per commit. An installation that minds uses PostgreSQL.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    if not connection.get_execution_options().get("writing"):
        connection.exec_driver_sql("BEGIN")
        return
    # IMMEDIATE: a deferred transaction that reads first and writes then fails at once when somebody wrote in between.
    # SQLite's own busy handler sleeps longer and longer (1, 2, 5, 10, 15, 20, 25 ms ...): who has waited longest comes last.
    driver = connection.connection.driver_connection
    assert driver is not None
    deadline = time.monotonic() + BUSY_S
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while time.monotonic() < deadline:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
                time.sleep(AGAIN_S)
            else:
                return
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")


def _lacks_a_right(error: exc.DBAPIError) -> bool:
    """insufficient_privilege (PostgreSQL, appendix A)."""
    return _state(error) == "42501"


def _state(error: exc.DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
