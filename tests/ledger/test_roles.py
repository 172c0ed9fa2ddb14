"""Each station's work under its role on PostgreSQL: all of it with the rights of ledger/roles.json, none of it without one of them."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import exc, text
from sqlalchemy.orm import Session

from ledger import (
    Ledger,
    archives,
    audit,
    files,
    leaving,
    load_checks,
    logs,
    outbox,
    promises,
    redriven,
    replay,
    sweeper,
    why,
)
from ledger.claims import Claimant, ClaimedRun, Lease, claim, event_bodies, hand_back, present, renew, report
from ledger.credentials import refused_owners, reseal, unseal
from ledger.engine import NotAllowed
from ledger.events import Match, not_sent, record_events
from ledger.executors import Executor
from ledger.handlers import NewHandler, Options, blob, codes, list_handlers, matchable, register, remove, revision
from ledger.keys import rekey
from ledger.listing import Wanted, newest
from ledger.reconcile import reconcile
from ledger.results import close
from ledger.retain import KINDS, remove_some, too_old
from ledger.roles import VERSIONS, Right, grant, role_names, roles
from ledger.rules import KeepRules, MailRules, Rules
from ledger.runs import run_view
from ledger.sizes import sizes
from ledger.tables import RunRow, Table
from ledger.versions import rollback, set_paused, versions
from ledger.waiting import oldest_email_s, oldest_queued_s
from schemas.records import KEY_REFUSED, Outcome, Result, RunError, Upload
from tests.invited import due
from tests.ledger.conftest import HOOK, a_database, an_event

PATTERN = f"t{uuid.uuid4().hex[:12]}_{{station}}"
"""Roles are the server's, which other tests use too."""
RULES = Rules(first_wait_s=0.0, max_hand_backs=1, max_attempts=1, mail=MailRules(storm_after=1))
AT_ONCE = KeepRules(-1, -1, -1, -1, -1, -1, -1)
"""All that has ended is too old."""


class Desk:
    """A transaction on a ledger with all its tables, in which a station works under its role; it is never committed."""

    def __init__(self, session: Session, ledger: Ledger, role: str) -> None:
        self.session, self.ledger, self.role = session, ledger, role

    @contextlib.contextmanager
    def as_others(self) -> Iterator[None]:
        """What is done in the block is other stations' work."""
        self.session.flush()
        self.session.execute(text("SET LOCAL ROLE NONE"))
        yield
        self.session.flush()
        self.session.expire_all()
        self.session.execute(text(f'SET LOCAL ROLE "{self.role}"'))

    def handler(self, name: str = "h", owner: str = "alice", **options: object) -> int:
        new = NewHandler(
            HOOK, name, owner, (), "ok@example.com", "bad@example.com", "py3.11", name.encode(),
            options=Options(**options),  # type: ignore[arg-type]
        )  # fmt: skip
        return register(self.session, new, owner).id

    def runs(self, handler_id: int, count: int) -> list[str]:
        (met,) = [one for one in matchable(self.session) if one.handler_id == handler_id]
        match = Match(met.handler_id, met.version, met.owner, met.runtime)
        events = [(an_event(), [match]) for _ in range(count)]
        return [one.run_id for record in record_events(self.session, events) for one in record.invitations]

    def lease(self, run_id: str) -> Lease:
        ((_, answer),) = claim(self.session, Claimant("boot", uuid.uuid4().hex, "executor"), [run_id], RULES)
        assert isinstance(answer, ClaimedRun)
        return Lease(run_id, answer.lease_id)

    def ended(self, run_ids: list[str]) -> None:
        """With an upload, an email that was sent, a file whose bytes are gone."""
        for run_id in run_ids:
            code = hashlib.sha256(run_id.encode()).hexdigest()[:32]
            found = (Upload(code, "a.csv", 3),)
            close(self.session, Result(run_id, self.lease(run_id).lease_id, Outcome.FAILED, "executor", uploads=found))
            files.note_removed(self.session, [code])
        for mail in outbox.take(self.session, "sender", 100, 60.0):
            outbox.sent(self.session, mail)

    def old_leases(self, run_ids: list[str]) -> None:
        self.session.execute(text("UPDATE run SET lease_until_ms = 1 WHERE id = ANY(:ids)"), {"ids": run_ids})


def registry(desk: Desk) -> None:
    session, ledger = desk.session, desk.ledger
    for _ in range(2):
        sweeper.heartbeat(session, RULES)
        rekey(session, ledger, "alice", "K" * 40)
    one = desk.handler()
    desk.handler(retries=1)
    rollback(session, one, 0, "alice", False)
    set_paused(session, one, True, "alice", False)
    set_paused(session, one, False, "alice", False)
    with desk.as_others():
        first, *others = desk.runs(one, 4)
    for slots in (2, 3):
        present(session, "boot", Executor("executor", slots, ("py3.11",)))
    kept = desk.lease(first)
    logs.append(session, kept, 0, "printed")
    renew(session, [kept], RULES)
    for lease in (
        kept,
        *(desk.lease(run_id) for run_id in others[:2]),
    ):  # the first's email; a digest; into that digest
        assert hand_back(session, lease, "NO_BTRDB", "away", True, RULES)
    (last,) = newest(session, Wanted(state="queued"), 10).runs
    assert report(session, desk.lease(last.run_id)) and unseal(session, ledger, "alice")
    row = session.get_one(RunRow, first)
    logs.read(session, row, 1, 0)
    view = run_view(session, first)
    assert view is not None and event_bodies(session, [f"{view.hook} {view.request_id}"])
    replay.replay(session, replay.Selection(HOOK, since_ms=0), str(uuid.uuid4()))
    assert blob(session, versions(session, one)[0].digest)
    load_checks.ask(session, load_checks.LoadCheck("c" * 32, "py3.11", HOOK, b"code", ()))
    assert load_checks.waiting(session, ["py3.11"]) and load_checks.take(session, ["py3.11"])
    load_checks.answer(session, "c" * 32, load_checks.Verdict(True, ""))
    assert load_checks.verdict(session, "c" * 32)
    load_checks.withdraw(session, "c" * 32)
    remove(session, one, "alice", False)
    read_twice(desk)


def read_twice(desk: Desk) -> None:
    """What is read again and again is noted once."""
    for _ in range(2):
        audit.note_reading(desk.session, audit.Actor("root", audit.ADMIN), audit.Act.READ_LOG, audit.RUN, "r")


def dispatcher(desk: Desk) -> None:
    session = desk.session
    with desk.as_others():
        one = desk.handler()
        elsewhere = desk.handler("elsewhere")
        old, *_ = ended = desk.runs(one, 4)
        desk.ended(ended)
        redriven.note_redriven(session, 3, "bob")
        sweeper.heartbeat(session, RULES)
    for _ in range(2):
        assert sweeper.lead(session, "sweeper", "boot", 60.0)
    sweeper.give_back(session, "sweeper", "boot")
    assert oldest_queued_s(session, ("py3.11",)) and oldest_email_s(session) >= 0
    assert revision(session) and matchable(session)
    made = desk.runs(one, 3)
    not_sent(session, made)
    assert due(session, RULES, 100).invitations
    with desk.as_others():
        desk.old_leases([desk.lease(run_id).run_id for run_id in made[:2]])
    assert sweeper.free_ended(session, sweeper.ended_leases(session), RULES) == 2
    assert sweeper.unserved(session, {"py3.7"}, -1.0, RULES.mail)
    assert sweeper.answering_since_ms(session, RULES)
    reconcile(session, 0)
    promises.started(session, 0, -1.0)
    with desk.as_others():
        remove(session, elsewhere, "alice", False)
        read_twice(desk)
    remove_all(desk)
    assert session.get(RunRow, old) is None
    sizes(session)


def remove_all(desk: Desk) -> None:
    """What retention does, every kind."""
    for kind in (*KINDS, *KINDS):  # again, for what the first time made room for
        remove_some(desk.session, kind, AT_ONCE, 100)


def notifier(desk: Desk) -> None:
    session = desk.session
    with desk.as_others():
        one = desk.handler(retries=1)
        rekey(session, desk.ledger, "alice", "K" * 40)
        runs = desk.runs(one, 4)
        leases = [desk.lease(run_id) for run_id in runs]
    upload = (Upload("c" * 32, "a.csv", 3),)
    for lease, outcome, more in (
        (leases[0], Outcome.SUCCEEDED, {"uploads": upload}),
        (leases[1], Outcome.SUCCEEDED, {}),  # into a digest
        (leases[2], Outcome.FAILED, {}),  # tried again
        (leases[3], Outcome.REFUSED, {"error": RunError(KEY_REFUSED, "expired")}),
    ):
        result = Result(lease.run_id, lease.lease_id, outcome, "executor", **more)
        assert close(session, result, RULES.mail).counted
    assert [view.paused for view in list_handlers(session)] == [True]
    assert refused_owners(session, {"alice"})
    (mail,) = outbox.take(session, "sender", 10, 60.0)
    outbox.postpone(session, mail, "busy", 0.0)
    outbox.counts(session)
    (old,) = files.expired(session, -1.0, 10)
    files.note_removed(session, [old.code])


def ctingress(desk: Desk) -> None:
    session = desk.session
    new = archives.NewArchive(
        "r" * 36, "alice", "k" * 40, "a.zip", "a", 1, "d" * 64, ("/a.cfg",), (), "", None, "", "once"
    )
    archives.add(session, desk.ledger, new)
    assert archives.take(session, desk.ledger, "worker", 60.0)
    assert archives.progress(session, "r" * 36, "worker", [], 60.0)
    assert not archives.published_before(session, HOOK, "r" * 36)
    assert archives.end(session, "r" * 36, "worker", "", [])
    archives.forget(session, [name for name, _ in archives.ended_before(session, -1.0, 10)])
    assert archives.counts(session) == {}


def downloads(desk: Desk) -> None:
    with desk.as_others():
        desk.ended(desk.runs(desk.handler(), 1))
        (old,) = desk.session.scalars(text("SELECT code FROM file"))
    assert files.file_of(desk.session, old)
    audit.note(desk.session, audit.Actor("bob", audit.USER), audit.Act.DOWNLOAD, audit.FILE, old)


def admin(desk: Desk) -> None:
    session, ledger = desk.session, desk.ledger
    with desk.as_others():
        one, two = desk.handler(), desk.handler("two", "bob")
        for owner in ("alice", "bob"):
            rekey(session, ledger, owner, "K" * 40)
        archives.add(
            session, ledger,
            archives.NewArchive("r" * 36, "alice", "k" * 40, "a.zip", "a", 1, "d" * 64, (), (), "", None, "", None),
        )  # fmt: skip
        desk.ended([*desk.runs(one, 2)])
        waiting = desk.runs(one, 1)
        record_events(session, [(an_event(), [])])
        sweeper.heartbeat(session, RULES)
    mail, *_ = outbox.recent(session, outbox.Wanted(), 10)
    assert outbox.line(session, mail.id) and outbox.run_ids(session, mail.id) and outbox.retry(session, [mail.id]) == 0
    assert reseal(session, ledger) == (3, [])
    replay.replay(session, replay.Selection(HOOK, since_ms=0), str(uuid.uuid4()))
    for _ in range(2):
        redriven.note_redriven(session, 3, "bob")
    assert redriven.redriven(session)
    reconcile(session, 0)
    view = session.get_one(RunRow, waiting[0])
    assert why.event_tags(session, HOOK, view.request_id) is not None
    assert why.verdicts(session, HOOK, ()) and why.frozen(session, HOOK, view.request_id)
    assert all(blob(session, one.digest) for one in codes(session, "py3.11"))
    set_paused(session, two, True, "root", True)
    leaving.transfer(session, "bob", "alice", "root")
    leaving.purge(session, "alice", "root")
    audit.note(session, audit.Actor("root", audit.OPERATOR), audit.Act.PURGE, audit.OWNER, "alice")
    assert audit.entries(session, audit.Wanted(), 10)
    too_old(session, AT_ONCE)
    remove_all(desk)
    sizes(session)


WORK: dict[str, Callable[[Desk], None]] = {
    "registry": registry, "dispatcher": dispatcher, "notifier": notifier, "ctingress": ctingress,
    "downloads": downloads, "admin": admin,
}  # fmt: skip
EACH = [pytest.param(station, id=station) for station in roles()]


@pytest.fixture(scope="module")
def guarded(postgresql: str) -> Iterator[Ledger]:
    """A ledger whose server has the stations' roles."""
    opened = Ledger.open(a_database(postgresql), [Fernet.generate_key().decode()])
    opened.migrate()
    grant(opened, PATTERN)
    yield opened
    opened.close()


@contextlib.contextmanager
def at_work(ledger: Ledger, station: str, *without: Right) -> Iterator[Desk]:
    """The station's transaction, without these of its rights; rolled back at the end."""
    role = role_names(PATTERN)[station]
    with ledger.engine.connect() as connection, Session(connection, expire_on_commit=False) as session:
        for right in without:
            session.execute(text(f'REVOKE {right.sql("public")} FROM "{role}"'))
        session.execute(text(f'SET LOCAL ROLE "{role}"'))
        yield Desk(session, ledger, role)
        session.rollback()


@pytest.mark.parametrize("station", EACH)
def test_a_station_does_all_its_work_with_its_rights(guarded: Ledger, station: str) -> None:
    with at_work(guarded, station) as desk:
        WORK[station](desk)


@pytest.mark.slow
@pytest.mark.parametrize("station", EACH)
def test_without_one_of_its_rights_a_station_is_refused(guarded: Ledger, station: str) -> None:
    idle = []
    for right in roles()[station]:
        if right.table == VERSIONS:
            continue
        with at_work(guarded, station, right) as desk:
            try:
                WORK[station](desk)
            except exc.ProgrammingError as error:
                assert f"permission denied for table {right.table}" in str(error.orig), right
            else:
                idle.append(right)
    assert not idle


@pytest.mark.parametrize("station", EACH)
def test_what_is_not_a_stations_is_refused_to_it(guarded: Ledger, station: str) -> None:
    mine = {
        (right.table, right.operation, column)
        for right in roles()[station]
        if right.table != VERSIONS
        for column in right.columns or Table.metadata.tables[right.table].columns.keys()
    }
    for name, table in Table.metadata.tables.items():
        for column in (one.name for one in table.columns):
            for operation, statement in (
                ("SELECT", f"SELECT {column} FROM {name}"),
                ("INSERT", f"INSERT INTO {name} ({column}) VALUES (NULL)"),
                ("UPDATE", f"UPDATE {name} SET {column} = NULL"),
                ("DELETE", f"DELETE FROM {name}"),
            ):
                if (name, operation, column) not in mine:
                    with (
                        at_work(guarded, station) as desk,
                        pytest.raises(exc.ProgrammingError, match="permission denied"),
                    ):
                        desk.session.execute(text(statement))


def test_sealed_keys_and_handlers_code_are_for_those_alone_who_need_them() -> None:
    may_read = {
        (right.table, column): {
            station
            for station, rights in roles().items()
            for one in rights
            if (one.table, one.operation) == (right.table, "SELECT") and (not one.columns or column in one.columns)
        }
        for right, column in (
            (Right("credential", "SELECT"), "sealed"), (Right("archive", "SELECT"), "sealed"),
            (Right("blob", "SELECT"), "body"), (Right("load_check", "SELECT"), "blob"),
        )
    }  # fmt: skip

    assert may_read == {
        ("credential", "sealed"): {"registry", "admin"}, ("archive", "sealed"): {"ctingress", "admin"},
        ("blob", "body"): {"registry", "admin"}, ("load_check", "blob"): {"registry"},
    }  # fmt: skip


def test_every_table_is_somebodys() -> None:
    assert {right.table for rights in roles().values() for right in rights} == {*Table.metadata.tables, VERSIONS}


def test_the_rights_are_given_again_after_a_change_and_what_is_no_longer_listed_is_taken(guarded: Ledger) -> None:
    role = role_names(PATTERN)["downloads"]
    with guarded.write() as session:
        session.execute(text(f'GRANT SELECT ON run, blob TO "{role}"'))
        session.execute(text(f'REVOKE SELECT ON file FROM "{role}"'))

    grant(guarded, PATTERN)

    with at_work(guarded, "downloads") as desk:
        downloads(desk)
        with pytest.raises(exc.ProgrammingError, match="permission denied for table blob"):
            desk.session.execute(text("SELECT digest FROM blob"))


@pytest.fixture
def as_dispatcher(postgresql_url: str) -> Iterator[Callable[[Ledger], Ledger]]:
    """The same ledger as the dispatcher has it."""
    opened: list[Ledger] = []

    def make(ledger: Ledger) -> Ledger:
        role = role_names(PATTERN)["dispatcher"]
        with ledger.write() as session:
            session.execute(text(f"""ALTER ROLE "{role}" LOGIN PASSWORD 'secret'"""))
        url = ledger.engine.url.set(username=role, password="secret").render_as_string(hide_password=False)
        opened.append(Ledger.open(url))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_station_that_may_not_migrate_waits_for_who_may(
    guarded: Ledger, postgresql_url: str, as_dispatcher: Callable[[Ledger], Ledger]
) -> None:
    owner = Ledger.open(postgresql_url)
    station = as_dispatcher(owner)
    with pytest.raises(NotAllowed, match=r"its tables are not there, and this role may not change them.*migrate"):
        station.migrate()
    owner.migrate()
    with pytest.raises(NotAllowed, match=f"permission denied for table {VERSIONS}"):
        station.migrate()

    grant(owner, PATTERN)

    station.migrate()
    with pytest.raises(NotAllowed, match="permission denied for table credential"), station.read() as session:
        session.execute(text("SELECT sealed FROM credential"))
    with pytest.raises(NotAllowed, match="permission denied"):
        grant(station, PATTERN)
    owner.close()
