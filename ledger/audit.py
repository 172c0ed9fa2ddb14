"""Who did what to whose: a row for each act, written in the transaction that does it, and a line in the log once that has committed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import event, insert, select
from sqlalchemy.orm import Session

from ledger.engine import now_ms, storable
from ledger.tables import AuditRow

log = structlog.get_logger()

USER, ADMIN, OPERATOR = "user", "admin", "operator"
HANDLER, OWNER, RUN, FILE, EMAIL, LETTER, LEDGER = "handler", "owner", "run", "file", "email", "dead_letter", "ledger"
AGAIN_MS = 600_000
"""Who reads the same again and again, following a log say, is noted so often."""
LONGEST = 200


class Act(StrEnum):
    """What is noted. Reading: code by anybody, files by anybody, runs and their logs by an admin who is not their owner."""

    REGISTER = "register"
    REKEY = "rekey"
    ROLLBACK = "rollback"
    PAUSE = "pause"
    RESUME = "resume"
    REMOVE = "remove"
    REPLAY = "replay"
    TRANSFER = "transfer"
    PURGE = "purge"
    READ_CODE = "read-code"
    READ_RUN = "read-run"
    READ_LOG = "read-log"
    LIST_RUNS = "list-runs"
    DOWNLOAD = "download"
    RESEAL = "reseal"
    REDRIVE = "redrive"
    RETRY_EMAIL = "retry-email"
    RETAIN = "retain"


@dataclass(frozen=True)
class Actor:
    """Who acts. role: USER, ADMIN, or OPERATOR with eventproc-admin; peer: the address that the call came from, '' for none."""

    name: str
    role: str
    peer: str = ""


@dataclass(frozen=True)
class Entry:
    """An act. kind, thing: what was acted on, by its id; detail: small, by the act; at_ms: ms since the epoch."""

    id: int
    at_ms: int
    who: str
    role: str
    peer: str
    act: str
    kind: str
    thing: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which acts; '' and 0 for any. since_ms: included; until_ms: excluded; before: an id that theirs are below."""

    who: str = ""
    act: str = ""
    kind: str = ""
    thing: str = ""
    since_ms: int = 0
    until_ms: int = 0
    before: int = 0


def person(name: str, admin: bool, peer: str) -> Actor:
    """Who calls with an API key."""
    return Actor(name, ADMIN if admin else USER, peer)


def note(session: Session, actor: Actor, act: Act, kind: str, thing: str | int, **detail: object) -> None:
    """Notes the act in this transaction. detail: what JSON takes; no secret."""
    fields = {
        "who": _short(actor.name), "role": actor.role, "peer": _short(actor.peer), "act": act.value,
        "kind": kind, "thing": _short(thing),
    }  # fmt: skip
    session.execute(
        insert(AuditRow).values(
            at_ms=now_ms(session), detail=storable(json.dumps(detail, ensure_ascii=False)), **fields
        )
    )

    def tell(_session: Session) -> None:
        log.info("audit", **fields, detail=detail)

    event.listen(session, "after_commit", tell, once=True)


def note_reading(session: Session, actor: Actor, act: Act, kind: str, thing: str | int, **detail: object) -> None:
    """The same, unless the same person's same act has been noted within AGAIN_MS."""
    row, since = AuditRow, now_ms(session) - AGAIN_MS
    same = (row.kind == kind, row.thing == _short(thing), row.act == act.value)
    query = select(row.id).where(*same, row.who == _short(actor.name), row.at_ms > since).limit(1)
    if session.scalar(query) is None:
        note(session, actor, act, kind, thing, **detail)


def entries(session: Session, wanted: Wanted, limit: int) -> list[Entry]:
    """The newest acts of those wanted, at most limit, the newest first."""
    row = AuditRow
    given = (
        (row.who, wanted.who), (row.act, wanted.act), (row.kind, wanted.kind), (row.thing, wanted.thing),
    )  # fmt: skip
    query = select(row).where(*(column == value for column, value in given if value), row.at_ms >= wanted.since_ms)
    if wanted.until_ms:
        query = query.where(row.at_ms < wanted.until_ms)
    if wanted.before:
        query = query.where(row.id < wanted.before)
    return [
        Entry(one.id, one.at_ms, one.who, one.role, one.peer, one.act, one.kind, one.thing, json.loads(one.detail))
        for one in session.scalars(query.order_by(row.id.desc()).limit(limit))
    ]


def _short(text: str | int) -> str:
    return storable(str(text))[:LONGEST]
