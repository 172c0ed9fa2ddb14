"""Who may be invited next: owners in turn, and no more than can be used, so that one owner's flood waits in the ledger.

A task in a partition that nobody has slots for would stand before everybody else's.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from ledger.conditions import IS_RUNNING, WAITING
from ledger.credentials import refused_owners
from ledger.engine import is_postgresql, now_ms
from ledger.executors import Shares
from ledger.handlers import PRESENT
from ledger.rules import Rules
from ledger.tables import QUEUED, HandlerRow, HandlerVersionRow, RunRow

CHUNK = 500  # SQLite takes 32,766 parameters in a statement
GROUPS_AT_ONCE = 200

T = TypeVar("T")


@dataclass(frozen=True)
class Invitation:
    """A run that may be claimed."""

    run_id: str
    owner: str
    runtime: str
    hook: str


class Rooms:
    """How many more invitations may go out, by owner and runtime, and by what the caps leave."""

    def __init__(
        self,
        session: Session,
        rules: Rules,
        now: int,
        handler_ids: Collection[int],
        owners: Collection[str] | None = None,
    ) -> None:
        """handler_ids: those that will be asked about; owners: theirs; None: all. Counts what is out and what runs."""
        self._rules = rules
        self._shares = Shares(session, rules, now)
        self._out: Counter[tuple[str, str]] = Counter()
        self._of_owner: Counter[str] = Counter()
        self._of_handler: Counter[int] = Counter()
        for owner, runtime, handler_id, count in session.execute(_counted(is_out(rules, now), owners)):
            self._out[(owner, runtime)] += count
            self._of_owner[owner] += count
            self._of_handler[handler_id] += count
        self._caps = own_caps(session, handler_ids)
        if rules.per_owner or rules.per_handler or self._caps:
            running = select(RunRow.owner, RunRow.handler_id).where(IS_RUNNING)
            if owners is not None:
                running = running.where(RunRow.owner.in_(owners))
            for owner, handler_id in session.execute(running):
                self._of_owner[owner] += 1
                self._of_handler[handler_id] += 1

    def left(self, owner: str, runtime: str, handler_id: int) -> int:
        """How many invitations may go out for this handler now."""
        rules = self._rules
        left = rules.invited_per_owner - self._out[(owner, runtime)]
        if rules.per_owner:
            left = min(left, rules.per_owner - self._of_owner[owner])
        for cap in (rules.per_handler, self._caps.get(handler_id, 0)):
            if cap:
                left = min(left, cap - self._of_handler[handler_id])
        share = self._shares.left(owner, runtime)
        if share is not None:
            left = min(left, share - self._out[(owner, runtime)])
        return max(left, 0)

    def take(self, owner: str, runtime: str, handler_id: int) -> bool:
        """Whether one more may go out; then it counts as out."""
        if not self.left(owner, runtime, handler_id):
            return False
        self._out[(owner, runtime)] += 1
        self._of_owner[owner] += 1
        self._of_handler[handler_id] += 1
        return True


@dataclass(frozen=True)
class Due:
    """invitations: to be sent now; waiting: more is due than has room, so it is worth looking again soon."""

    invitations: tuple[Invitation, ...]
    waiting: bool


def take_up(session: Session, rules: Rules, planned: Sequence[Invitation]) -> tuple[Invitation, ...]:
    """Those of them that are still to be invited, noted as invited; for a plan that was made before this transaction began."""
    now = now_ms(session)
    noted = note_invited(session, [invitation.run_id for invitation in planned], now, _ready(rules, now))
    return tuple(invitation for invitation in planned if invitation.run_id in noted)


def plan(session: Session, rules: Rules, limit: int, now: int) -> Due:
    """The runs to invite now: queued, due, and not invited within rules.reinvite_after_s. Changes nothing.

    Owners come in turn, an owner's handlers in turn, a handler's runs by age; at most limit, and no more than Rooms leaves.
    """
    ready = _ready(rules, now)
    found = session.execute(select(RunRow.owner, RunRow.runtime, RunRow.handler_id).where(WAITING).distinct()).all()
    refused = refused_owners(session, {owner for owner, _, _ in found})  # theirs wait for another key
    groups = [(owner, runtime, handler) for owner, runtime, handler in found if owner not in refused]
    rooms = Rooms(session, rules, now, {handler_id for _, _, handler_id in groups})
    lines: dict[str, list[list[tuple[Invitation, int]]]] = defaultdict(list)
    waiting = len(groups) > GROUPS_AT_ONCE
    for owner, runtime, handler_id in _some(groups):
        room = min(rooms.left(owner, runtime, handler_id), limit)
        if not room:
            waiting = True
            continue
        query = (
            select(RunRow.id, RunRow.owner, RunRow.runtime, RunRow.hook)
            .where(
                RunRow.owner == owner, RunRow.runtime == runtime, RunRow.handler_id == handler_id,
                WAITING, ready,
            )
            .order_by(RunRow.queued_at_ms, RunRow.id)
            .limit(room + 1)
        )  # fmt: skip
        rows = [(Invitation(*row), handler_id) for row in session.execute(query)]
        waiting = waiting or len(rows) > room
        if rows:
            lines[owner].append(rows[:room])
    chosen: list[Invitation] = []
    for invitation, handler_id in _in_turn([list(_in_turn(handlers)) for handlers in lines.values()]):
        if len(chosen) == limit:
            waiting = True
            break
        if rooms.take(invitation.owner, invitation.runtime, handler_id):
            chosen.append(invitation)
        else:
            waiting = True
    return Due(tuple(chosen), waiting)


def at_once(session: Session, rules: Rules, made: Collection[tuple[Invitation, int]], now: int) -> set[str]:
    """Of runs that are just being made, (invitation, handler id) each: the ids of those that may be invited at once.

    The others wait for their turn in the ledger; so does every run of an owner who has some waiting there already.
    """
    owners = {invitation.owner for invitation, _ in made}
    rooms = Rooms(session, rules, now, {handler_id for _, handler_id in made}, owners)
    behind = set()
    for owner in owners:
        query = select(RunRow.id).where(RunRow.owner == owner, WAITING, _ready(rules, now)).limit(1)
        if session.scalar(query) is not None:
            behind.add(owner)
    return {
        invitation.run_id
        for invitation, handler_id in made
        if invitation.owner not in behind and rooms.take(invitation.owner, invitation.runtime, handler_id)
    }


def own_caps(session: Session, handler_ids: Collection[int]) -> dict[int, int]:
    """How many runs at a time those handlers want at most, as they are registered now; the others are left out."""
    found: dict[int, int] = {}
    ids = sorted(handler_ids)
    for start in range(0, len(ids), CHUNK):
        query = (
            select(HandlerRow.id, HandlerVersionRow.max_concurrency)
            .join(HandlerVersionRow, PRESENT)
            .where(HandlerRow.id.in_(ids[start : start + CHUNK]), HandlerVersionRow.max_concurrency > 0)
        )
        found.update((handler_id, cap) for handler_id, cap in session.execute(query))
    return found


def is_out(rules: Rules, now: int) -> ColumnElement[bool]:
    """The runs whose invitation is out: somebody may be about to take it up."""
    # lower(): an index by state would bring up the whole queue; the few that are out have one of their own
    return and_(func.lower(RunRow.state) == QUEUED, RunRow.invited_at_ms > now - _reinvite_ms(rules))


def _reinvite_ms(rules: Rules) -> int:
    return int(rules.reinvite_after_s * 1000)


def _ready(rules: Rules, now: int) -> ColumnElement[bool]:
    stale = now - _reinvite_ms(rules)
    return and_(RunRow.not_before_ms <= now, or_(RunRow.invited_at_ms.is_(None), RunRow.invited_at_ms <= stale))


def _counted(which: ColumnElement[bool], owners: Collection[str] | None) -> Select[str, str, int, int]:
    query = select(RunRow.owner, RunRow.runtime, RunRow.handler_id, func.count()).where(which)
    if owners is not None:
        query = query.where(RunRow.owner.in_(owners))
    return query.group_by(RunRow.owner, RunRow.runtime, RunRow.handler_id)


def _some(groups: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """At most GROUPS_AT_ONCE of them, others each time, owners in turn."""
    random.shuffle(groups)
    owners: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for group in groups:
        owners[group[0]].append(group)
    return list(_in_turn(list(owners.values())))[:GROUPS_AT_ONCE]


def _in_turn(lines: Collection[Collection[T]]) -> Iterator[T]:
    """The first of each line, the second of each, and so on."""
    for rank in zip_longest(*lines):
        yield from (one for one in rank if one is not None)


def note_invited(
    session: Session, run_ids: Collection[str], now: int | None, only: ColumnElement[bool] | None = None
) -> set[str]:
    """Notes that these runs are invited now; None: that they are not after all. Returns those that it was noted of.

    One that is being claimed needs no note; nor do those beyond only. Rows are locked by id, as claims lock them: a bare UPDATE
    takes them in any order, and the two end in a deadlock.
    """
    ids = sorted(run_ids)
    noted: set[str] = set()
    for start in range(0, len(ids), CHUNK):
        query = select(RunRow.id).where(RunRow.id.in_(ids[start : start + CHUNK]), WAITING).order_by(RunRow.id)
        if only is not None:
            query = query.where(only)
        if is_postgresql(session):
            query = query.with_for_update(skip_locked=True)
        found = session.scalars(query).all()
        session.execute(update(RunRow).where(RunRow.id.in_(found), WAITING).values(invited_at_ms=now))
        noted.update(found)
    return noted
