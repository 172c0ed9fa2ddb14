"""The ground that the ledger's state machine stands on: handlers, one step with a crash, and what is always true."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from sqlalchemy import text
from sqlalchemy.orm import Session

from ledger import Ledger
from ledger.claims import Claimant, Lease
from ledger.handlers import NewHandler, Options, register
from ledger.keys import rekey
from ledger.rules import MailRules, Rules
from schemas.events import Event
from tests.ledger.conftest import HOOK
from tests.ledger.model import ENDED, QUEUED, REPORTED, RUNNING, Book, Owned

T = TypeVar("T")

RULES = Rules(
    lease_s=60.0, max_attempts=2, max_lost_together=3, max_hand_backs=3, per_owner=3, per_handler=2, first_wait_s=1.0,
    longest_wait_s=4.0, invited_per_owner=2, reinvite_after_s=30.0,
    mail=MailRules(storm_after=2, storm_window_s=3600.0, digest_every_s=600.0, digest_most=3),
)  # fmt: skip
START = 1_700_000_000_000
HANDLERS = (
    ("one", "alice", True, True, Options()),
    ("two", "alice", False, True, Options(retries=1, retry_delay_s=4.0)),
    ("three", "bob", True, True, Options(max_concurrency=1, notify="digest")),
    ("four", "carol", True, False, Options(retries=2)),
)
OUTCOMES = ("succeeded", "failed", "failed", "timed_out", "refused")
OWNERS = ("alice", "bob", "carol")
BOOTS = ("boot-a", "boot-b", "boot-c")
CRASHES = st.sampled_from(["none", "none", "none", "none", "before commit", "after commit"])


class Crash(Exception):
    """The process is gone before its commit."""


class Ground(RuleBasedStateMachine):
    """A ledger beside its model, and what is always true of the two."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.book = Book(RULES, START)
        self.events: list[Event] = []
        self.frozen: dict[str, list[str]] = {}  # RequestID -> runs, once an event is in the ledger
        self.grants: dict[Claimant, set[tuple[str, int]]] = {}
        self.kafka: list[str] = []  # invitations that were sent
        self.leases: list[tuple[Lease, int, str]] = []  # every lease that anybody ever learnt, with its number and boot
        self.asked: list[tuple[Claimant, list[str]]] = []  # claims of which nobody knows the answer
        self.final: dict[str, tuple[Any, ...]] = {}
        self.nonces = 0

    # what a step is

    def step(self, work: Callable[[Session], T], crash: str) -> T | None:
        """The work in one transaction; None when its answer is lost. Whether it was committed: crash != 'before commit'."""
        try:
            with self.ledger.write() as session:
                answer = work(session)
                if crash == "before commit":
                    raise Crash
        except Crash:
            return None
        return None if crash == "after commit" else answer

    @initialize()
    def empty_ledger(self) -> None:
        with self.ledger.write() as session:
            for table in (
                "notification_run",
                "notification",
                "attempt",
                "run",
                "event",
                "handler_version",
                "handler",
                "blob",
                "credential",
                "leader",
            ):
                session.execute(text(f"DELETE FROM {table}"))
            self._number_from_one(session)
            session.execute(text("UPDATE clock SET now_ms = :now"), {"now": START})
            views = [
                register(
                    session,
                    NewHandler(HOOK, name, owner, (), f"{name}@example.com" * ok, f"{owner}@example.com" * bad, "py3.11", b"p",
                               options=options),
                    owner,
                )
                for name, owner, ok, bad, options in HANDLERS
            ]  # fmt: skip
            for owner in OWNERS:
                rekey(session, self.ledger, owner, "a key")
                self.book.rekey(owner)
        self.views = views
        self.owned = [
            Owned(view.id, view.owner, ok, bad, o.retries, int(o.retry_delay_s * 1000), o.max_concurrency)
            for view, (_, _, ok, bad, o) in zip(views, HANDLERS, strict=True)
        ]
        self.alive = [True] * len(views)

    @staticmethod
    def _number_from_one(session: Session) -> None:
        """The same ids in each example, so that hypothesis can repeat it."""
        if session.get_bind().dialect.name == "sqlite":
            session.execute(text("DELETE FROM sqlite_sequence"))
        else:
            session.execute(text("ALTER SEQUENCE handler_id_seq RESTART"))

    # what is always true

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        if not hasattr(self, "views"):
            return
        columns = "id, state, claims, lost, lost_together, hand_backs, retried, lost_with, lease_until_ms, not_before_ms, invited_at_ms"
        there = {row[0]: tuple(row) for row in self._rows(f"SELECT {columns} FROM run")}
        for run in self.book.runs.values():
            row = there.pop(run.id)
            with_whom = None if run.lost_with is None else hashlib.sha256(run.lost_with.encode()).hexdigest()
            assert row == (
                run.id, run.state, run.claims, run.lost, run.lost_together, run.hand_backs, run.retried, with_whom,
                run.lease_until, run.not_before, run.invited_at,
            )  # fmt: skip
        assert not there

    @invariant()
    def an_end_is_written_once(self) -> None:
        ended = {
            row[0]: tuple(row)
            for row in self._rows(
                "SELECT id, state, ended_at_ms, text, error_message FROM run WHERE ended_at_ms IS NOT NULL"
            )
        }
        for one, row in self.final.items():
            assert ended.get(one) == row
        assert all(row[1] in ENDED for row in ended.values())
        self.final = ended

    @invariant()
    def each_run_that_is_due_an_email_is_in_exactly_one(self) -> None:
        told = Counter(row[0] for row in self._rows("SELECT run_id FROM notification_run"))
        assert set(told.values()) <= {1}
        assert {run.id for run in self.book.runs.values() if run.due_an_email} <= set(told)
        assert {run.id for run in self.book.runs.values() if run.may_be_in_an_email} >= set(told)
        assert not self._rows(
            "SELECT id FROM notification n WHERE NOT EXISTS (SELECT 1 FROM notification_run WHERE notification_id = n.id)"
        )
        assert all(
            row[0] <= RULES.mail.digest_most
            for row in self._rows("SELECT count(*) FROM notification_run GROUP BY notification_id")
        )

    @invariant()
    def one_lease_is_open_for_a_run_that_is_held_and_none_for_others(self) -> None:
        opened = Counter(row[0] for row in self._rows("SELECT run_id FROM attempt WHERE ended_at_ms IS NULL"))
        assert opened == Counter(run.id for run in self.book.runs.values() if run.state in (RUNNING, REPORTED))
        numbers = self._rows("SELECT run_id, count(*), max(number) FROM attempt GROUP BY run_id")
        assert {row[0]: (row[1], row[2]) for row in numbers} == {
            run.id: (run.claims, run.claims) for run in self.book.runs.values() if run.claims
        }

    @invariant()
    def handlers_are_paused_exactly_while_their_owners_key_is_refused(self) -> None:
        if hasattr(self, "views"):
            paused = {row[0] for row in self._rows("SELECT id FROM handler WHERE paused AND removed_at_ms IS NULL")}
            owned = [one for one, alive in zip(self.owned, self.alive, strict=True) if alive]
            assert paused == {one.id for one in owned if one.owner in self.book.refused}

    @invariant()
    def caps_hold(self) -> None:
        if hasattr(self, "views"):
            for handler in self.owned:
                assert self.book.running(handler=handler.id) <= self.book.cap(handler)
        for column, most in (("owner", RULES.per_owner), ("handler_id", RULES.per_handler)):
            counted = self._rows(f"SELECT count(*) FROM run WHERE state = 'running' GROUP BY {column}")
            assert all(row[0] <= most for row in counted)

    @invariant()
    def no_more_invitations_are_out_than_there_may_be(self) -> None:
        assert all(count <= RULES.invited_per_owner for count in self.book.out().values())

    # reading

    def _rows(self, query: str) -> list[Any]:
        with self.ledger.read() as session:
            return list(session.execute(text(query)).all())

    def _learn_invited(self, run_ids: list[str]) -> None:
        """Which of them the ledger chose to invite now is its own affair: fairness is held elsewhere, here the marks are taken over."""
        marked = {row[0] for row in self._rows(f"SELECT id FROM run WHERE invited_at_ms = {self.book.now}")}
        for one in run_ids:
            run = self.book.runs[one]
            if one in marked and run.state == QUEUED:
                run.invited_at = self.book.now
