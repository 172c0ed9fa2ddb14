"""Claims, leases, the sweeper, fair release and a run's states against a simple model, with a crash between any two steps.

A crash is either a transaction that was rolled back, or one that was committed but whose caller never learnt the answer: it asks
again with the same nonce, or dies with its leases. Invitations, results and reports may come late, twice or never.
"""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from ledger import Ledger, engine, outbox, sweeper
from ledger.claims import Claimant, ClaimedRun, Drop, Later, Lease, claim, hand_back, renew, report
from ledger.events import record_events
from ledger.handlers import remove
from ledger.keys import rekey
from ledger.results import close
from schemas.events import Event, run_id
from schemas.records import KEY_REFUSED, Outcome, Result, RunError
from tests.invited import due
from tests.ledger.conftest import HOOK, an_event, match_of
from tests.ledger.ground import BOOTS, CRASHES, OUTCOMES, OWNERS, RULES, Ground
from tests.ledger.model import ENDED, QUEUED, REPORTED, RUNNING, Run


class Machine(Ground):
    """The road around the ledger: events come, tasks wait in Kafka, executors claim and die, time passes when a rule says so."""

    # events

    @precondition(lambda self: len(self.book.of(QUEUED)) < 12)
    @rule(who=st.sets(st.integers(0, 3), min_size=1), times=st.integers(1, 3), crash=CRASHES)
    def events_come(self, who: set[int], times: int, crash: str) -> None:
        events = [an_event(request_id=str(uuid.UUID(int=len(self.events) + n))) for n in range(times)]
        self.events.extend(events)
        self._dispatch(events, who, crash)

    @precondition(lambda self: self.events)
    @rule(data=st.data(), who=st.sets(st.integers(0, 3)), crash=CRASHES)
    def events_come_again(self, data: st.DataObject, who: set[int], crash: str) -> None:
        """Handlers may have been registered and removed meanwhile; one event may be twice in a batch."""
        self._dispatch(data.draw(st.lists(st.sampled_from(self.events), min_size=1, max_size=3)), who, crash)

    def _dispatch(self, events: list[Event], who: set[int], crash: str) -> None:
        chosen = [index for index in sorted(who) if self.alive[index]]
        matches = [match_of(self.views[index]) for index in chosen]
        recorded = self.step(lambda s: record_events(s, [(event, matches) for event in events], RULES), crash)
        if crash == "before commit":
            return
        expected = []
        for event in events:
            new = event.request_id not in self.frozen
            if new:
                made = [
                    Run(run_id(HOOK, event.request_id, self.owned[i].id), self.owned[i], self.book.now) for i in chosen
                ]
                self.book.runs.update((run.id, run) for run in made)
                self.frozen[event.request_id] = [run.id for run in made]
            expected.append((new, len(self.frozen[event.request_id]) if new else 0))
        self._learn_invited([run for event in events for run in self.frozen[event.request_id]])
        for event, record, (new, runs) in zip(events, recorded or (), expected, strict=False):
            invited = [invitation.run_id for invitation in record.invitations]
            assert (record.new, record.runs) == (new, runs)
            assert set(invited) <= set(self.frozen[event.request_id])
            assert all(self.book.runs[one].invited_at == self.book.now for one in invited)
            self.kafka.extend(invited)

    # the sweeper

    @rule(limit=st.integers(1, 6), crash=CRASHES)
    def the_sweeper_invites(self, limit: int, crash: str) -> None:
        ready, out = {run.id: run for run in self.book.ready()}, self.book.out()
        found = self.step(lambda s: due(s, RULES, limit), crash)
        if crash == "before commit":
            return
        if found is None:
            self._learn_invited(list(self.book.runs))
            return
        chosen = [invitation.run_id for invitation in found.invitations]
        assert len(chosen) == len(set(chosen)) <= limit and set(chosen) <= set(ready)
        self.book.invite(chosen)
        self.kafka.extend(chosen)
        self._assert_fair(ready, out, chosen, limit, found.waiting)

    def _assert_fair(
        self, ready: dict[str, Run], out: Counter[str], chosen: list[str], limit: int, waiting: bool
    ) -> None:
        got = Counter(ready[run].handler.owner for run in chosen)
        left = [run for run in ready.values() if run.id not in chosen and self._room(run, out + got)]
        assert not left or (len(chosen) == limit and waiting)
        for owner in {run.handler.owner for run in left}:
            assert max(got.values()) <= got[owner] + 1, f"{owner} waits while others get more: {got}"

    def _room(self, run: Run, out: Counter[str]) -> bool:
        owner, handler = run.handler.owner, run.handler.id
        stale = self.book.now - int(RULES.reinvite_after_s * 1000)
        invited = [r for r in self.book.of(QUEUED) if r.invited_at is not None and r.invited_at > stale]
        of_handler = sum(r.handler.id == handler for r in invited)
        return (
            out[owner] < RULES.invited_per_owner
            and out[owner] + self.book.running(owner=owner) < RULES.per_owner
            and of_handler + self.book.running(handler=handler) < self.book.cap(run.handler)
        )

    @rule(all_of_them=st.booleans(), crash=CRASHES)
    def the_sweeper_frees_what_has_ended(self, all_of_them: bool, crash: str) -> None:
        with self.ledger.read() as session:
            ended = sweeper.ended_leases(session)
        assert set(ended) == self.book.ended_leases()
        chosen = ended if all_of_them else ended[:1]
        freed = self.step(lambda s: sweeper.free_ended(s, [*chosen, *self.kafka[:1]], RULES), crash)
        if crash != "before commit":
            expected = self.book.free([*chosen, *self.kafka[:1]])
            assert freed in (None, expected)

    # executors

    @rule(
        data=st.data(),
        index=st.integers(0, 3),
        boot=st.sampled_from(BOOTS),
        outcomes=st.lists(st.sampled_from(OUTCOMES)),
    )
    def runs_go_their_way(self, data: st.DataObject, index: int, boot: str, outcomes: list[str]) -> None:
        """Hypothesis leaves out rules at random in each example; this one alone brings runs through all their states."""
        if len(self.book.of(QUEUED)) < 12:
            self.events_come({index}, 2, "none")
        for outcome in outcomes:
            waiting = [run.id for run in self.book.of(QUEUED) if run.not_before <= self.book.now]
            held = len(self.leases)
            if waiting:
                self._claim_some(data, waiting, boot, "none")
            for lease in self.leases[held:]:
                self._result(lease, outcome, "none")
            self.time_passes(1000)

    @precondition(lambda self: self.book.of(QUEUED))
    @rule(data=st.data(), boot=st.sampled_from(BOOTS), crash=CRASHES)
    def an_executor_claims(self, data: st.DataObject, boot: str, crash: str) -> None:
        self._claim_some(data, [run.id for run in self.book.of(QUEUED)], boot, crash)

    @precondition(lambda self: self.book.runs)
    @rule(data=st.data(), boot=st.sampled_from(BOOTS), crash=CRASHES)
    def an_executor_takes_up_what_lies_in_kafka(self, data: st.DataObject, boot: str, crash: str) -> None:
        self._claim_some(data, list(self.kafka) or list(self.book.runs), boot, crash)

    def _claim_some(self, data: st.DataObject, offered: list[str], boot: str, crash: str) -> None:
        ids = data.draw(st.lists(st.sampled_from(offered), min_size=1, max_size=4))
        self.nonces += 1
        self._claim(Claimant(boot, f"nonce-{self.nonces}", "e"), ids, crash)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), crash=CRASHES)
    def it_asks_again_for_an_answer_it_never_got(self, data: st.DataObject, crash: str) -> None:
        claimant, ids = data.draw(st.sampled_from(self.asked))
        self.asked.remove((claimant, ids))
        self._claim(claimant, ids, crash)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def it_dies_with_the_leases_it_never_heard_of(self, data: st.DataObject) -> None:
        self.asked.remove(data.draw(st.sampled_from(self.asked)))

    def _claim(self, claimant: Claimant, ids: list[str], crash: str) -> None:
        answers = self.step(lambda s: claim(s, claimant, ids, RULES), crash)
        if crash == "before commit":
            self.asked.append((claimant, ids))
            return
        expected = {}
        for one in dict.fromkeys(ids):
            run = self.book.runs[one]
            again = run.state == RUNNING and (one, run.lease) in self._granted(claimant)
            expected[one] = "run" if again else self.book.claim(one, claimant.boot_id)
            if expected[one] == "run":
                self._granted(claimant).add((one, run.lease or 0))
        self.kafka = [waiting for waiting in self.kafka if waiting not in ids]  # its offset is committed
        if answers is None:
            self.asked.append((claimant, ids))
            return
        kinds = {ClaimedRun: "run", Later: "later", Drop: "drop"}
        assert [(one, kinds[type(answer)]) for one, answer in answers] == [(one, expected[one]) for one in ids]
        for one, answer in dict(answers).items():
            if isinstance(answer, ClaimedRun):
                assert answer.attempt == self.book.runs[one].claims
                self.leases.append((Lease(one, answer.lease_id), answer.attempt, claimant.boot_id))

    def _granted(self, claimant: Claimant) -> set[tuple[str, int]]:
        return self.grants.setdefault(claimant, set())

    @precondition(lambda self: self.leases)
    @rule(boot=st.sampled_from(BOOTS), crash=CRASHES)
    def an_executor_renews(self, boot: str, crash: str) -> None:
        mine = {lease.run_id: (lease, number) for lease, number, of in self.leases if of == boot}
        lost = self.step(lambda s: renew(s, [lease for lease, _ in mine.values()], RULES), crash)
        if crash == "before commit":
            return
        kept = [one for one, (_, number) in mine.items() if self.book.present(one, number, RUNNING, REPORTED)]
        for one in kept:
            self.book.runs[one].lease_until = self.book.now + self.book.lease_ms
        assert lost is None or set(lost) == set(mine) - set(kept)

    @precondition(lambda self: self._held())
    @rule(data=st.data(), crash=CRASHES)
    def a_run_is_reported(self, data: st.DataObject, crash: str) -> None:
        lease, number, _ = data.draw(st.sampled_from(self.leases))
        counted = self.step(lambda s: report(s, lease), crash)
        run = self.book.runs[lease.run_id]
        if crash != "before commit":
            assert counted in (None, run.lease == number)
            if self.book.present(lease.run_id, number, RUNNING):
                run.state = REPORTED

    @precondition(lambda self: self._held())
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), crash=CRASHES)
    def a_result_comes(self, data: st.DataObject, outcome: str, crash: str) -> None:
        self._result(data.draw(st.sampled_from(self._held())), outcome, crash)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), crash=CRASHES)
    def a_result_comes_late_or_twice(self, data: st.DataObject, outcome: str, crash: str) -> None:
        self._result(data.draw(st.sampled_from(self.leases)), outcome, crash)

    def _held(self) -> list[tuple[Lease, int, str]]:
        """The leases that are present and whose holder knows of them."""
        return [one for one in self.leases if self.book.present(one[0].run_id, one[1], RUNNING, REPORTED)]

    def _result(self, held: tuple[Lease, int, str], outcome: str, crash: str) -> None:
        lease, number, _ = held
        error = RunError(KEY_REFUSED, "BTrDB refuses the API key") if outcome == "refused" else None
        result = Result(lease.run_id, lease.lease_id, Outcome(outcome), "e", text=f"{number}", error=error)
        closed = self.step(lambda s: close(s, result, RULES.mail), crash)
        if crash != "before commit":
            counted = self.book.result(lease.run_id, number, outcome)
            assert closed is None or closed.counted == counted

    @precondition(lambda self: self._held())
    @rule(data=st.data(), stopping=st.booleans(), begun=st.booleans(), crash=CRASHES)
    def a_run_is_handed_back(self, data: st.DataObject, stopping: bool, begun: bool, crash: str) -> None:
        lease, number, _ = data.draw(st.sampled_from(self.leases))
        reason = "SHUTTING_DOWN" if stopping else "BTRDB_AWAY"
        counted = self.step(lambda s: hand_back(s, lease, reason, "why", begun, RULES), crash)
        if crash != "before commit":
            expected = self.book.hand_back(lease.run_id, number, stopping)
            assert counted in (None, expected)

    # the rest of the world

    @rule(ms=st.sampled_from([1, 1000, 4000, 29_999, 30_000, 60_000, 60_001, 700_000]))
    def time_passes(self, ms: int) -> None:
        self.book.now += ms
        with self.ledger.write() as session:
            session.execute(text("UPDATE clock SET now_ms = :now"), {"now": self.book.now})

    @precondition(lambda self: len(self.events) > 4)
    @rule(index=st.integers(0, 3), crash=CRASHES)
    def a_handler_is_removed(self, index: int, crash: str) -> None:
        if not self.alive[index] or sum(self.alive) == 1:
            return
        self.step(lambda s: remove(s, self.owned[index].id, self.owned[index].owner, False), crash)
        if crash != "before commit":
            self.alive[index] = False
            self.book.cancel(self.owned[index].id)

    @precondition(lambda self: self.book.refused)
    @rule(owner=st.sampled_from(OWNERS), crash=CRASHES)
    def an_owner_gives_another_key(self, owner: str, crash: str) -> None:
        self.step(lambda s: rekey(s, self.ledger, owner, "another key"), crash)
        if crash != "before commit":
            self.book.rekey(owner)

    @rule(send=st.booleans(), crash=CRASHES)
    def emails_are_taken(self, send: bool, crash: str) -> None:
        mails = self.step(lambda s: outbox.take(s, "sender", 2, 60.0), crash)
        for mail in mails or ():
            told = [run.run_id for run in mail.runs] or [line.run_id for line in mail.lines]
            assert told and all(self.book.runs[one].may_be_in_an_email for one in told)
            if send:
                self.step(lambda s, mail=mail: outbox.sent(s, mail), "none")  # type: ignore[misc]

    def teardown(self) -> None:
        """Everybody comes back and works: all runs end, in a number of turns that is bounded, and nobody's wait for another's."""
        if not hasattr(self, "views"):
            return
        for owner in OWNERS:
            self.an_owner_gives_another_key(owner, "none")
        left = [run for run in self.book.runs.values() if run.state not in ENDED]
        for turn in range(40 + 2 * len(left)):
            if all(run.state in ENDED for run in self.book.runs.values()):
                break
            self.time_passes(700_000)
            self.the_sweeper_frees_what_has_ended(True, "none")
            self.time_passes(5_000)
            waiting = {run.handler.owner for run in self.book.ready()}
            self.kafka.clear()
            self.the_sweeper_invites(4, "none")
            assert {self.book.runs[one].handler.owner for one in self.kafka} == waiting
            for one in list(self.kafka):
                self.nonces += 1
                held = len(self.leases)
                self._claim(Claimant(f"end-{turn}-{one}", "n", "e"), [one], "none")
                for lease, number, _ in self.leases[held:]:
                    with self.ledger.write() as session:
                        assert close(
                            session, Result(lease.run_id, lease.lease_id, Outcome.SUCCEEDED, "e"), RULES.mail
                        ).counted
                    assert self.book.result(lease.run_id, number, "succeeded")
        assert all(run.state in ENDED for run in self.book.runs.values())
        self.the_ledger_is_as_the_model_says()
        self.each_run_that_is_due_an_email_is_in_exactly_one()


@pytest.fixture
def clock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's time is what a table of it says."""
    with ledger.write() as session:
        session.execute(text("CREATE TABLE clock (now_ms BIGINT)"))
        session.execute(text("INSERT INTO clock VALUES (0)"))
    for dialect in ("sqlite", "postgresql"):
        monkeypatch.setitem(engine._NOW, dialect, text("SELECT now_ms FROM clock"))


def hold(ledger: Ledger, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: Machine(ledger),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_the_ledger_does_what_the_model_says_whatever_crashes_between(url: str, ledger: Ledger, clock: None) -> None:
    hold(ledger, examples=40 if url.startswith("sqlite") else 10, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_ledger_does_what_the_model_says_for_long(url: str, ledger: Ledger, clock: None) -> None:
    hold(ledger, examples=150 if url.startswith("sqlite") else 40, steps=60)
