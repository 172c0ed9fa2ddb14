"""Claims and leases: who runs what, until when. Only the present lease counts."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, select, text, update
from sqlalchemy.orm import Session

from ledger.conditions import IS_RUNNING
from ledger.credentials import refused_owners
from ledger.engine import is_postgresql, now_ms, storable
from ledger.executors import Executor, Shares, seen
from ledger.fair import CHUNK, own_caps
from ledger.notify import close_run
from ledger.rules import Rules
from ledger.tables import (
    QUEUED,
    REPORTED,
    RUNNING,
    AttemptRow,
    EventRow,
    HandlerRow,
    HandlerVersionRow,
    RunLogRow,
    RunRow,
)
from schemas.records import Outcome, RunError

CAPPED_S = 2.0
KEY_REFUSED_S = 60.0


@dataclass(frozen=True)
class Claimant:
    """Who claims: boot_id is a secret of the executor's process, nonce names the request, executor is for people."""

    boot_id: str
    nonce: str
    executor: str


@dataclass(frozen=True)
class Lease:
    """A run and the lease under which somebody acts on it, 32 hex digits."""

    run_id: str
    lease_id: str


@dataclass(frozen=True)
class ClaimedRun:
    """All that an executor needs to run it, but the event's body, the code and the key. wall_s, memory_bytes: 0 for its default."""

    run_id: str
    lease_id: str
    hook: str
    request_id: str
    handler_id: int
    handler_name: str
    handler_version: int
    owner: str
    runtime: str
    blob_digest: str
    source: str
    first_line: int
    file_name: str
    attempt: int
    queued_at_ms: int
    wall_s: float = 0.0
    memory_bytes: int = 0
    requirements: tuple[str, ...] = ()
    traceparent: str = ""

    @property
    def event_key(self) -> str:
        """Under which event_bodies() gives the event."""
        return f"{self.hook} {self.request_id}"


@dataclass(frozen=True)
class Later:
    """Not now: a cap is reached or its time has not come. The sweeper invites again."""

    after_s: float
    reason: str


@dataclass(frozen=True)
class Drop:
    """Never by this invitation: leased by another, ended, removed, unknown."""

    reason: str


Answer = ClaimedRun | Later | Drop


def present(session: Session, boot_id: str, executor: Executor) -> None:
    """The executor is there: its slots count from now on, until it is not heard of for half a lease."""
    seen(session, _hash(boot_id), executor)


def claim(session: Session, claimant: Claimant, run_ids: Sequence[str], rules: Rules) -> list[tuple[str, Answer]]:
    """An answer for each run, in order.

    Idempotent by (boot_id, nonce): asked again, a run that was leased by that request and is still under that lease is answered
    with the same lease. For that the ledger keeps a salt; with the boot id, of which it keeps the hash alone, it gives the lease
    id. So nobody who reads the ledger can act on a lease.
    """
    now = now_ms(session)
    boot = _hash(claimant.boot_id)
    rows = locked(session, run_ids)
    caps = own_caps(session, {row.handler_id for row in rows.values()})
    _alone_with_caps(session, rows.values(), rules, caps)
    refused = refused_owners(session, {row.owner for row in rows.values()})
    before = session.scalars(
        select(AttemptRow)
        .where(AttemptRow.boot_hash == boot, AttemptRow.nonce == claimant.nonce)
        .order_by(
            AttemptRow.number
        )  # asked again after the lease was lost, the run was leased anew: its last salt counts
    )
    salts = {attempt.run_id: attempt.salt for attempt in before}
    answers: dict[str, Answer] = {}
    shares = Shares(session, rules, now)
    for run_id in dict.fromkeys(run_ids):
        row = rows.get(run_id)
        if row is None:
            answers[run_id] = Drop("there is no such run")
            continue
        lease_id = _lease_id(claimant.boot_id, salts[run_id], run_id) if run_id in salts else ""
        if lease_id and row.state == RUNNING and row.lease_hash == _hash(lease_id):
            answers[run_id] = _claimed(session, row, lease_id)
            continue
        refusal = _refusal(session, row, now, rules, caps.get(row.handler_id, 0))
        if refusal is None and row.owner in refused:
            refusal = Later(KEY_REFUSED_S, f"BTrDB refuses {row.owner}'s API key; it waits for rekey(conn)")
        if refusal is None and not shares.may_take(row.owner, row.runtime, boot):
            why = f"{row.owner} has as many slots as one owner may have; the last are kept for others"
            refusal = Later(CAPPED_S, why)
        if refusal is None:
            answers[run_id] = _lease(session, row, claimant, boot, now, rules)
            shares.take(row.owner, boot)
        else:
            answers[run_id] = refusal
            if isinstance(refusal, Later):
                row.invited_at_ms = None
                row.not_before_ms = max(row.not_before_ms, now + int(refusal.after_s * 1000))
                session.flush()
    return [(run_id, answers[run_id]) for run_id in run_ids]


def event_bodies(session: Session, keys: Sequence[str]) -> dict[str, bytes]:
    """The bodies (JSON in UTF-8) of the events under these ClaimedRun.event_keys, each once."""
    bodies = {}
    for key in dict.fromkeys(keys):
        hook, _, request_id = key.partition(" ")
        body = session.scalar(select(EventRow.body).where(EventRow.hook == hook, EventRow.request_id == request_id))
        if body is not None:
            bodies[key] = body
    return bodies


def renew(session: Session, leases: Sequence[Lease], rules: Rules) -> list[str]:
    """Prolongs the leases by rules.lease_s from now; returns the run ids whose lease is no longer the present one.

    A lease that has ended but that nobody has taken away yet is prolonged like any other.
    """
    until = now_ms(session) + int(rules.lease_s * 1000)
    lost = []
    for lease in sorted(leases, key=lambda one: one.run_id):  # always in the same order, against deadlocks
        done = session.execute(update(RunRow).where(_present(lease, RUNNING, REPORTED)).values(lease_until_ms=until))
        if done.rowcount == 0:  # type: ignore[attr-defined]
            lost.append(lease.run_id)
    return lost


def report(session: Session, lease: Lease) -> bool:
    """The run has ended and its result is in Kafka; False when the lease is not the present one."""
    now = now_ms(session)
    done = session.execute(update(RunRow).where(_present(lease, RUNNING)).values(state=REPORTED, reported_at_ms=now))
    if done.rowcount == 1:  # type: ignore[attr-defined]
        return True
    # said twice, or the notifier was quicker than the report
    again = select(RunRow.id).where(RunRow.id == lease.run_id, RunRow.lease_hash == _hash(lease.lease_id))
    return session.scalar(again) is not None


def hand_back(session: Session, lease: Lease, reason: str, text: str, begun: bool, rules: Rules) -> bool:
    """Queues the run again, with back-off, without counting an attempt; False when the lease is not the present one.

    reason: a word for why; text: the same for people; begun: whether the handler's first line was reached.
    After rules.max_hand_backs the run is abandoned.
    """
    row = locked(session, [lease.run_id]).get(lease.run_id)
    if row is None or row.state != RUNNING or row.lease_hash != _hash(lease.lease_id):
        return False
    now = now_ms(session)
    row.hand_backs += 1
    text = storable(text)
    end_attempt(session, row, now, f"handed back: {reason}: {text}"[:1000], begun)
    if row.hand_backs >= rules.max_hand_backs:
        why = f"it was handed back {row.hand_backs} times, the last time because {text or reason}"
        close_run(session, row, Outcome.ABANDONED, now, rules.mail, RunError("Abandoned", why))
    else:
        requeue(row, now, now + (0 if reason == "SHUTTING_DOWN" else rules.wait_ms(row.hand_backs)))
    session.flush()
    return True


def requeue(row: RunRow, now: int, not_before: int) -> None:
    """Back to the queue: no lease, no invitation."""
    row.state, row.not_before_ms, row.invited_at_ms = QUEUED, max(now, not_before), None
    row.lease_hash = row.lease_until_ms = row.boot_hash = row.reported_at_ms = None


def end_attempt(session: Session, row: RunRow, now: int, reason: str, begun: bool | None = None) -> None:
    """Notes how the run's present attempt ended."""
    values: dict[str, object] = {"ended_at_ms": now, "reason": reason}
    if begun is not None:
        values["begun"] = begun
    session.execute(
        update(AttemptRow).where(AttemptRow.run_id == row.id, AttemptRow.number == row.claims).values(**values)
    )
    session.execute(delete(RunLogRow).where(RunLogRow.run_id == row.id))


def lease_counts(row: RunRow, lease_id: str) -> bool:
    """Whether this is the run's present lease."""
    return row.lease_hash is not None and hmac.compare_digest(row.lease_hash, _hash(lease_id))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _lease_id(boot_id: str, salt: str, run_id: str) -> str:
    return hmac.new(boot_id.encode(), f"{salt} {run_id}".encode(), hashlib.sha256).hexdigest()[:32]


def locked(session: Session, run_ids: Sequence[str]) -> dict[str, RunRow]:
    """The rows of these runs, locked by this transaction, by id."""
    rows: dict[str, RunRow] = {}
    ids = sorted(set(run_ids))
    for start in range(0, len(ids), CHUNK):
        query = select(RunRow).where(RunRow.id.in_(ids[start : start + CHUNK])).order_by(RunRow.id)
        if is_postgresql(session):
            query = query.with_for_update()
        rows.update((row.id, row) for row in session.scalars(query.execution_options(populate_existing=True)))
    return rows


def _present(lease: Lease, *states: str) -> ColumnElement[bool]:
    return and_(RunRow.id == lease.run_id, RunRow.lease_hash == _hash(lease.lease_id), RunRow.state.in_(states))


def _refusal(session: Session, row: RunRow, now: int, rules: Rules, own_cap: int) -> Later | Drop | None:
    if row.state in (RUNNING, REPORTED):
        return Drop("it is leased by another")
    if row.state != QUEUED:
        return Drop(f"it has ended: {row.state}")
    if row.not_before_ms > now:
        return Later((row.not_before_ms - now) / 1000, "its time has not come")
    if row.lost_with is not None and _running(session, row, "lost_with"):
        return Later(CAPPED_S, "it was lost together with another that runs now; they are tried one at a time")
    if rules.per_owner and _running(session, row, "owner") >= rules.per_owner:
        return Later(CAPPED_S, f"{row.owner} has {rules.per_owner} runs going, which is the cap for an owner")
    cap = min(filter(None, (rules.per_handler, own_cap)), default=0)
    if cap and _running(session, row, "handler_id") >= cap:
        whose = "its own cap" if cap == own_cap else "the cap for a handler"
        return Later(CAPPED_S, f"the handler has {cap} runs going, which is {whose}")
    return None


def _alone_with_caps(session: Session, rows: Collection[RunRow], rules: Rules, caps: Mapping[int, int]) -> None:
    """Two claims must not count the same owner's or handler's runs at the same time; locked in one order, against deadlocks."""
    if not is_postgresql(session):
        return
    capped = {f"owner {row.owner}" for row in rows} if rules.per_owner else set()
    capped |= {f"handler_id {row.handler_id}" for row in rows if rules.per_handler or row.handler_id in caps}
    for what in sorted(capped):
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": what})


def _running(session: Session, row: RunRow, column: str) -> int:
    value = getattr(row, column)
    query = select(func.count()).where(getattr(RunRow, column) == value, IS_RUNNING)
    return session.scalar(query) or 0


def _lease(session: Session, row: RunRow, claimant: Claimant, boot: str, now: int, rules: Rules) -> ClaimedRun:
    salt = secrets.token_hex(16)
    lease_id = _lease_id(claimant.boot_id, salt, row.id)
    row.state, row.claims, row.invited_at_ms = RUNNING, row.claims + 1, None
    row.lease_hash, row.lease_until_ms, row.boot_hash = _hash(lease_id), now + int(rules.lease_s * 1000), boot
    session.add(
        AttemptRow(
            run_id=row.id,
            number=row.claims,
            boot_hash=boot,
            nonce=claimant.nonce,
            salt=salt,
            executor=claimant.executor,
            claimed_at_ms=now,
            begun=False,
            reason="",
        )
    )
    session.flush()
    return _claimed(session, row, lease_id)


def _claimed(session: Session, row: RunRow, lease_id: str) -> ClaimedRun:
    version, name = session.execute(
        select(HandlerVersionRow, HandlerRow.name)
        .join(HandlerRow, HandlerRow.id == HandlerVersionRow.handler_id)
        .where(HandlerVersionRow.handler_id == row.handler_id, HandlerVersionRow.version == row.handler_version)
    ).one()
    return ClaimedRun(
        run_id=row.id,
        lease_id=lease_id,
        hook=row.hook,
        request_id=row.request_id,
        handler_id=row.handler_id,
        handler_name=name,
        handler_version=row.handler_version,
        owner=row.owner,
        runtime=row.runtime,
        blob_digest=version.digest,
        source=version.source,
        first_line=version.first_line,
        file_name=version.file_name,
        attempt=row.claims,
        queued_at_ms=row.queued_at_ms,
        requirements=tuple(json.loads(version.requirements)),
        traceparent=row.traceparent,
        wall_s=version.timeout_s,
        memory_bytes=version.memory_bytes,
    )
