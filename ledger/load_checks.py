"""Handlers that wait to be loaded for their registration, where the executor that may do it asks another registry."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from ledger.engine import is_postgresql, now_ms, storable
from ledger.tables import LoadCheckRow

OLD_MS = 120_000  # nobody waits that long; who asked has died


@dataclass(frozen=True)
class LoadCheck:
    """One to be loaded. id: 32 hex digits; requirements: sorted."""

    id: str
    runtime: str
    hook: str
    blob: bytes
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """An executor's answer. loads: None when its sandbox could not say; lacking: modules that it will miss when it is called.

    memory_bytes: the most that the executor gives a run; 0: it did not tell.
    """

    loads: bool | None
    text: str
    lacking: tuple[str, ...] = ()
    memory_bytes: int = 0


def ask(session: Session, check: LoadCheck) -> None:
    """Lays it down for whichever registry has an executor's poll."""
    now = now_ms(session)
    session.execute(delete(LoadCheckRow).where(LoadCheckRow.asked_at_ms < now - OLD_MS))
    session.add(
        LoadCheckRow(
            id=check.id,
            runtime=check.runtime,
            hook=check.hook,
            blob=check.blob,
            requirements=json.dumps(check.requirements),
            asked_at_ms=now,
            taken=False,
        )
    )  # fmt: skip
    session.flush()


def waiting(session: Session, runtimes: Collection[str]) -> bool:
    """Whether there is one of these runtimes that nobody has taken."""
    query = select(LoadCheckRow.id).where(LoadCheckRow.taken.is_(False), LoadCheckRow.runtime.in_(runtimes)).limit(1)
    return session.scalar(query) is not None


def take(session: Session, runtimes: Collection[str]) -> LoadCheck | None:
    """The oldest of these runtimes that nobody has taken; nobody else gets it."""
    query = (
        select(LoadCheckRow)
        .where(LoadCheckRow.taken.is_(False), LoadCheckRow.runtime.in_(runtimes))
        .order_by(LoadCheckRow.asked_at_ms, LoadCheckRow.id)
        .limit(1)
    )
    if is_postgresql(session):
        query = query.with_for_update(skip_locked=True)
    row = session.scalar(query)
    if row is None:
        return None
    row.taken = True
    session.flush()
    return LoadCheck(row.id, row.runtime, row.hook, row.blob, tuple(json.loads(row.requirements)))


def answer(session: Session, check_id: str, verdict: Verdict) -> None:
    """What its executor found; nothing happens when nobody waits any more."""
    lacking = [storable(name) for name in verdict.lacking]
    told = json.dumps(dataclasses.asdict(verdict) | {"text": storable(verdict.text), "lacking": lacking})
    session.execute(update(LoadCheckRow).where(LoadCheckRow.id == check_id).values(verdict=told))


def verdict(session: Session, check_id: str) -> Verdict | None:
    """The answer, once there is one."""
    found = session.scalar(select(LoadCheckRow.verdict).where(LoadCheckRow.id == check_id))
    if found is None:
        return None
    told = json.loads(found)
    return Verdict(told["loads"], told["text"], tuple(told["lacking"]), told.get("memory_bytes", 0))


def withdraw(session: Session, check_id: str) -> None:
    """Nobody waits for it any more."""
    session.execute(delete(LoadCheckRow).where(LoadCheckRow.id == check_id))
