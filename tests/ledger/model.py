"""What the ledger should do with runs, in plain Python: the model that the property tests hold it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger.rules import Rules

QUEUED, RUNNING, REPORTED = "queued", "running", "reported"
ENDED = {"succeeded", "failed", "timed_out", "abandoned", "cancelled", "refused"}
RETRIED = {"failed", "timed_out"}


@dataclass(frozen=True)
class Owned:
    """A handler as the model knows it: mails says which ends of its runs are told; cap: of its runs at a time, 0 for none."""

    id: int
    owner: str
    mails_success: bool
    mails_failure: bool
    retries: int = 0
    retry_delay_ms: int = 0
    cap: int = 0


@dataclass
class Run:
    """A run; holder: (boot, lease number) of the present or last lease."""

    id: str
    handler: Owned
    not_before: int
    invited_at: int | None = None
    state: str = QUEUED
    claims: int = 0
    lost: int = 0
    lost_together: int = 0
    hand_backs: int = 0
    retried: int = 0
    claimed_at: int = 0
    lost_with: str | None = None
    boot: str | None = None
    lease: int | None = None  # number of the claim that holds it, or held it when it ended
    lease_until: int | None = None

    @property
    def due_an_email(self) -> bool:
        if self.state not in ENDED or self.state == "cancelled":
            return False
        return self.handler.mails_success if self.state == "succeeded" else self.handler.mails_failure

    @property
    def may_be_in_an_email(self) -> bool:
        """A refused key is told whatever its handler says: of the first run, and of those that come in time."""
        return self.due_an_email or self.state == "refused"


class Book:
    """All runs by id, and what each operation makes of them. now: ms, moved by the test alone."""

    def __init__(self, rules: Rules, now: int) -> None:
        self.rules = rules
        self.now = now
        self.runs: dict[str, Run] = {}
        self.sealed_at: dict[str, int] = {}  # owner -> when the present key was
        self.refused: set[str] = set()  # owners whose present key BTrDB refuses

    def of(self, state: str) -> list[Run]:
        return [run for run in self.runs.values() if run.state == state]

    def out(self) -> Counter[str]:
        """Invitations that are out, by owner."""
        stale = self.now - int(self.rules.reinvite_after_s * 1000)
        return Counter(
            run.handler.owner for run in self.of(QUEUED) if run.invited_at is not None and run.invited_at > stale
        )

    def running(self, *, owner: str = "", handler: int = 0) -> int:
        return sum(owner in ("", run.handler.owner) and handler in (0, run.handler.id) for run in self.of(RUNNING))

    def ready(self) -> list[Run]:
        """Queued, due, not out, and not waiting for another key."""
        stale = self.now - int(self.rules.reinvite_after_s * 1000)
        return [
            run
            for run in self.of(QUEUED)
            if run.not_before <= self.now
            and (run.invited_at is None or run.invited_at <= stale)
            and run.handler.owner not in self.refused
        ]

    def cap(self, handler: Owned) -> int:
        """Of the handler's runs at a time, by the rules and by itself; 0 for none."""
        return min(filter(None, (self.rules.per_handler, handler.cap)), default=0)

    def claim(self, run_id: str, boot: str) -> str:
        """run, later or drop, and what follows."""
        run = self.runs.get(run_id)
        if run is None or run.state != QUEUED:
            return "drop"
        mates = [m for m in self.of(RUNNING) if run.lost_with is not None and m.lost_with == run.lost_with]
        wait = 0
        if run.not_before > self.now:
            wait = run.not_before - self.now
        elif (
            mates
            or (self.rules.per_owner and self.running(owner=run.handler.owner) >= self.rules.per_owner)
            or (self.cap(run.handler) and self.running(handler=run.handler.id) >= self.cap(run.handler))
        ):
            wait = 2000
        elif run.handler.owner in self.refused:
            wait = 60_000
        if wait:
            run.invited_at, run.not_before = None, max(run.not_before, self.now + wait)
            return "later"
        run.state, run.invited_at, run.boot = RUNNING, None, boot
        run.claims += 1
        run.claimed_at = self.now
        run.lease, run.lease_until = run.claims, self.now + self.lease_ms
        return "run"

    @property
    def lease_ms(self) -> int:
        return int(self.rules.lease_s * 1000)

    def present(self, run_id: str, lease: int, *states: str) -> bool:
        run = self.runs[run_id]
        return run.state in states and run.lease == lease

    def hand_back(self, run_id: str, lease: int, at_once: bool) -> bool:
        if not self.present(run_id, lease, RUNNING):
            return False
        run = self.runs[run_id]
        run.hand_backs += 1
        if run.hand_backs >= self.rules.max_hand_backs:
            self.end(run, "abandoned")
        else:
            self._requeue(run, 0 if at_once else self.rules.wait_ms(run.hand_backs))
        return True

    def result(self, run_id: str, lease: int, outcome: str) -> bool:
        if not self.present(run_id, lease, RUNNING, REPORTED):
            return False
        run = self.runs[run_id]
        if outcome in RETRIED and run.retried < run.handler.retries:
            run.retried += 1
            self._requeue(run, run.handler.retry_delay_ms)
            return True
        if outcome == "refused" and run.claimed_at >= self.sealed_at[run.handler.owner]:
            self.refused.add(run.handler.owner)
        self.end(run, outcome)
        return True

    def rekey(self, owner: str) -> None:
        if owner in self.refused:
            for run in self.of(QUEUED):
                if run.handler.owner == owner:
                    run.not_before, run.invited_at = self.now, None
        self.refused.discard(owner)
        self.sealed_at[owner] = self.now

    def ended_leases(self) -> set[str]:
        held = self.of(RUNNING) + self.of(REPORTED)
        return {run.id for run in held if run.lease_until is not None and run.lease_until < self.now}

    def free(self, run_ids: Iterable[str]) -> int:
        ended = [self.runs[run_id] for run_id in self.ended_leases() & set(run_ids)]
        together = Counter(run.boot for run in ended if run.state == RUNNING)
        for run in ended:
            if run.state == RUNNING and together[run.boot] == 1:
                run.lost += 1
            else:
                run.lost_together += 1
                run.lost_with = run.boot if run.state == RUNNING else run.lost_with
            if run.lost >= self.rules.max_attempts or run.lost_together >= self.rules.max_lost_together:
                self.end(run, "abandoned")
            else:
                self._requeue(run, self.rules.wait_ms(run.lost + run.lost_together))
        return len(ended)

    def invite(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.runs[run_id].invited_at = self.now

    def cancel(self, handler: int) -> None:
        for run in self.of(QUEUED):
            if run.handler.id == handler:
                run.state = "cancelled"

    def end(self, run: Run, outcome: str) -> None:
        run.state, run.lease_until, run.invited_at = outcome, None, None

    def _requeue(self, run: Run, wait: int) -> None:
        run.state, run.invited_at, run.not_before = QUEUED, None, self.now + wait
        run.lease = run.lease_until = run.boot = None
