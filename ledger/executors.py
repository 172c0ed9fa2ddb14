"""Which executors there are, with how many slots, and how many of them one owner may have.

The rule is the dynamic threshold of shared buffers (Choudhury and Hahne, IEEE/ACM ToN 6(2), 1998): an owner may hold slots up to
a multiple of those that are free. One owner alone gets rules.owner_share of the slots, two of them less each, and one is left for
whoever comes next, without a cap that somebody has to set. It holds over all executors, and on each: a task stands in a partition
that one executor reads, so that one that is full makes others wait. With fewer than four slots nothing is kept free.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from ledger.conditions import IS_RUNNING
from ledger.engine import now_ms
from ledger.rules import Rules
from ledger.tables import ExecutorRow, RunRow

AGAIN_MS = 2000  # a sign of life is written at most so often
KEEP_MS = 3_600_000


@dataclass(frozen=True)
class Executor:
    """One executor's process: its name, for people; slots: how many handlers it runs at a time; runtimes: those it serves."""

    name: str
    slots: int
    runtimes: tuple[str, ...]


def seen(session: Session, boot_hash: str, executor: Executor) -> None:
    """The executor of this boot is there now."""
    now, runtimes = now_ms(session), json.dumps(sorted(executor.runtimes))
    row = session.get(ExecutorRow, boot_hash)
    if row is None:
        session.execute(delete(ExecutorRow).where(ExecutorRow.seen_at_ms < now - KEEP_MS))
        session.add(
            ExecutorRow(
                boot_hash=boot_hash, name=executor.name, slots=executor.slots, runtimes=runtimes, seen_at_ms=now
            )
        )
    elif now - row.seen_at_ms > AGAIN_MS or (row.slots, row.runtimes) != (executor.slots, runtimes):
        row.slots, row.runtimes, row.seen_at_ms = executor.slots, runtimes, now
    session.flush()


def served(session: Session, runtime: str, rules: Rules) -> bool:
    """Whether an executor of that runtime is there."""
    rows = session.scalars(select(ExecutorRow.runtimes).where(_heard_of(rules, now_ms(session))))
    return any(runtime in json.loads(runtimes) for runtimes in rows)


def _heard_of(rules: Rules, now: int) -> ColumnElement[bool]:
    return ExecutorRow.seen_at_ms >= now - int(rules.lease_s * 500)  # half a lease: they say so several times in one


class Shares:
    """How many slots each owner has and may have, as the ledger knows them now. An executor counts while it is heard of."""

    def __init__(self, session: Session, rules: Rules, now: int) -> None:
        self._share = rules.owner_share
        self._slots: dict[str, int] = {}  # by executor
        self._serving: dict[str, list[str]] = defaultdict(list)  # executors by runtime
        self._running: dict[str, Counter[str]] = defaultdict(Counter)  # by executor and owner
        if self._share >= 1:
            return
        for row in session.scalars(select(ExecutorRow).where(_heard_of(rules, now))):
            self._slots[row.boot_hash] = row.slots
            for runtime in json.loads(row.runtimes):
                self._serving[runtime].append(row.boot_hash)
        if self._slots:
            for owner, boot_hash in session.execute(select(RunRow.owner, RunRow.boot_hash).where(IS_RUNNING)):
                self._running[boot_hash or ""][owner] += 1

    def take(self, owner: str, boot_hash: str) -> None:
        """One more of the owner's runs is on this executor."""
        self._running[boot_hash][owner] += 1

    def may_take(self, owner: str, runtime: str, boot_hash: str) -> bool:
        """Whether one more of the owner's runs may go to this executor."""
        return 0 not in (self._left([boot_hash], owner), self._left(self._serving[runtime], owner))

    def left(self, owner: str, runtime: str) -> int | None:
        """How many more slots the owner may have now, over all executors; None when no slot is to be kept free."""
        everywhere = self._left(self._serving[runtime], owner)
        each = [(boot, self._left([boot], owner)) for boot in self._serving[runtime]]
        if everywhere is None and all(left is None for _, left in each):
            return None
        total = sum(self._free(boot) if left is None else left for boot, left in each)
        return total if everywhere is None else min(everywhere, total)

    def _left(self, executors: Sequence[str], owner: str) -> int | None:
        slots = sum(self._slots.get(boot, 0) for boot in executors)
        own = sum(self._running[boot][owner] for boot in executors)
        not_others = slots - sum(self._running[boot].total() for boot in executors) + own
        most = max(1, int(self._share * (not_others + 1) + 1e-9))
        return None if not slots or most >= not_others > 0 else max(0, most - own)

    def _free(self, boot: str) -> int:
        return max(0, self._slots[boot] - self._running[boot].total())
