"""Archives that were uploaded: kept with their uploader's sealed key until their event is published, worked on under a lease."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import InvalidToken
from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from ledger.engine import Ledger, is_postgresql, now_ms
from ledger.tables import ArchiveRow, EventRow

WAITING, WORKING, PUBLISHED, FAILED = "waiting", "working", "published", "failed"
BY_DIGEST = "digest "
"""How a `once` begins that was made from the content: it counts until the archive fails. A key of the uploader's counts for ever."""


@dataclass(frozen=True)
class NewArchive:
    """What is known once an archive has been stored. stored: its name in the store; size in bytes; digest: SHA-256 in hex.

    data_sets: the names of its data sets; once: what makes a second upload the same as the first, per owner; None: every upload is new.
    """

    request_id: str
    owner: str
    api_key: str
    file_name: str
    stored: str
    size: int
    digest: str
    data_sets: tuple[str, ...]
    tags: tuple[str, ...]
    prefix: str
    zone: str | None
    submitted_at: str
    once: str | None


@dataclass(frozen=True)
class ArchiveView:
    """An archive as its uploader sees it. data_sets: [{Name, Success, Error}], Success None until it is done; times in ms.

    lost: how many of its tries ended without a word, with their worker's lease.
    """

    request_id: str
    owner: str
    file_name: str
    stored: str
    size: int
    digest: str
    tags: tuple[str, ...]
    prefix: str
    zone: str | None
    submitted_at: str
    state: str
    error: str
    data_sets: tuple[Mapping[str, Any], ...]
    tries: int
    lost: int
    created_at_ms: int
    ended_at_ms: int | None


def add(session: Session, ledger: Ledger, new: NewArchive) -> tuple[ArchiveView, bool]:
    """Keeps the archive, or finds the owner's earlier one of the same `once`; whether it is new."""
    if new.once is not None:
        known = session.scalar(select(ArchiveRow).where(ArchiveRow.owner == new.owner, ArchiveRow.once == new.once))
        if known is not None and not (known.state == FAILED and new.once.startswith(BY_DIGEST)):
            return _view(known), False
        if known is not None:
            known.once = None
            session.flush()
    now = now_ms(session)
    row = ArchiveRow(
        request_id=new.request_id, owner=new.owner, sealed=ledger.seals.encrypt(new.api_key.encode()),
        file_name=new.file_name, stored=new.stored, size=new.size, digest=new.digest, tags=json.dumps(new.tags),
        prefix=new.prefix, zone=new.zone, submitted_at=new.submitted_at, once=new.once, state=WAITING, error="",
        data_sets=json.dumps([undone(name) for name in new.data_sets]), tries=0, lost=0, not_before_ms=now, created_at_ms=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return _view(row), True


def undone(name: str) -> dict[str, Any]:
    """A data set that nobody has read yet."""
    return {"Name": name, "Success": None, "Error": ""}


def get(session: Session, request_id: str) -> ArchiveView | None:
    """The archive of that RequestID, or None."""
    row = session.get(ArchiveRow, request_id, populate_existing=True)
    return _view(row) if row is not None else None


def take(session: Session, ledger: Ledger, worker: str, lease_s: float) -> tuple[ArchiveView, str | None] | None:
    """The oldest archive that is due, leased to worker for lease_s, with the uploader's key; None when there is none.

    worker: a name that no other worker ever has. The key is None when no present seal key opens it.
    """
    now = now_ms(session)
    free = or_(ArchiveRow.state == WAITING, ArchiveRow.lease_until_ms < now)
    query = (
        select(ArchiveRow)
        .where(ArchiveRow.state.in_((WAITING, WORKING)), free, ArchiveRow.not_before_ms <= now)
        .order_by(ArchiveRow.created_at_ms, ArchiveRow.request_id)
        .limit(1)
    )
    if is_postgresql(session):
        query = query.with_for_update(skip_locked=True)
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        return None
    row.lost += row.state == WORKING
    row.state, row.worker, row.lease_until_ms = WORKING, worker, now + int(lease_s * 1000)
    row.tries += 1
    session.flush()
    try:
        key = ledger.seals.decrypt(row.sealed).decode()
    except InvalidToken:
        key = None
    return _view(row), key


def progress(
    session: Session, request_id: str, worker: str, data_sets: Sequence[Mapping[str, Any]], lease_s: float
) -> bool:
    """Notes what is done so far and prolongs the lease; False when it is no longer the worker's."""
    row = _held(session, request_id, worker)
    if row is None:
        return False
    row.data_sets = json.dumps(list(data_sets))
    row.lease_until_ms = now_ms(session) + int(lease_s * 1000)
    session.flush()
    return True


def published_before(session: Session, hook: str, request_id: str) -> bool:
    """Whether the event has been dispatched already, so that it need not be published again."""
    found = select(EventRow.request_id).where(EventRow.hook == hook, EventRow.request_id == request_id)
    return session.scalar(found) is not None


def end(session: Session, request_id: str, worker: str, error: str, data_sets: Sequence[Mapping[str, Any]]) -> bool:
    """The event is published, or, with an error, never will be; the uploader's key is forgotten. False: not the worker's."""
    row = _held(session, request_id, worker)
    if row is None:
        return False
    row.state, row.error = (FAILED, error) if error else (PUBLISHED, "")
    row.sealed, row.worker, row.lease_until_ms = b"", None, None
    row.data_sets, row.ended_at_ms = json.dumps(list(data_sets)), now_ms(session)
    session.flush()
    return True


def put_off(session: Session, request_id: str, worker: str, error: str, wait_s: float) -> bool:
    """Something was away: the archive waits for wait_s and is taken again. False: not the worker's."""
    row = _held(session, request_id, worker)
    if row is None:
        return False
    row.state, row.error, row.worker, row.lease_until_ms = WAITING, error, None, None
    row.not_before_ms = now_ms(session) + int(wait_s * 1000)
    session.flush()
    return True


def ended_before(session: Session, age_s: float, limit: int) -> list[tuple[str, str]]:
    """(RequestID, name in the store) of at most limit archives that ended longer than age_s ago, the oldest first."""
    old = ArchiveRow.ended_at_ms < now_ms(session) - int(age_s * 1000)
    query = select(ArchiveRow.request_id, ArchiveRow.stored).where(old).order_by(ArchiveRow.ended_at_ms).limit(limit)
    return [(request_id, stored) for request_id, stored in session.execute(query)]


def forget(session: Session, request_ids: Sequence[str]) -> None:
    """Archives that have ended are no longer known."""
    which = (ArchiveRow.request_id.in_(request_ids), ArchiveRow.ended_at_ms.is_not(None))
    session.execute(delete(ArchiveRow).where(*which))


def counts(session: Session) -> dict[str, int]:
    """How many archives are in each state."""
    query = select(ArchiveRow.state, func.count()).group_by(ArchiveRow.state)
    return dict(session.execute(query).all())


def _held(session: Session, request_id: str, worker: str) -> ArchiveRow | None:
    query = select(ArchiveRow).where(ArchiveRow.request_id == request_id, ArchiveRow.worker == worker)
    if is_postgresql(session):
        query = query.with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def _view(row: ArchiveRow) -> ArchiveView:
    return ArchiveView(
        row.request_id, row.owner, row.file_name, row.stored, row.size, row.digest, tuple(json.loads(row.tags)),
        row.prefix, row.zone, row.submitted_at, row.state, row.error, tuple(json.loads(row.data_sets)), row.tries,
        row.lost, row.created_at_ms, row.ended_at_ms,
    )  # fmt: skip
