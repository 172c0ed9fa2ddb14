"""Handlers and their versions: register, list, remove; and what the dispatcher matches against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from sqlalchemy import ColumnElement, and_, insert, select, update
from sqlalchemy.orm import Session

from ledger.bulk import change_queued
from ledger.engine import is_postgresql, now_ms
from ledger.tables import BlobRow, HandlerRow, HandlerVersionRow, RevisionRow, RunRow
from schemas.records import Outcome


class NotOwner(Exception):
    """The handler belongs to somebody else; owner says to whom."""

    def __init__(self, view: HandlerView) -> None:
        super().__init__(f"handler {view.name!r} of hook {view.hook!r} belongs to {view.owner}")
        self.view = view


class NoSuchHandler(Exception):
    """No living handler has that id."""


EACH, DIGEST, FAILURES, NONE = "each", "digest", "failures", "none"
NOTIFY = (EACH, DIGEST, FAILURES, NONE)
"""When emails are sent: one for each run; runs told of together; of those alone that did not succeed; never."""


@dataclass(frozen=True)
class Options:
    """How a version is to be run; 0: as the installation does it for everybody.

    timeout_s, memory_bytes: of one attempt; max_concurrency: of its handler's runs at a time; retries: attempts after the first
    that failed, each retry_delay_s after the one before; notify: one of NOTIFY.
    """

    timeout_s: float = 0.0
    memory_bytes: int = 0
    max_concurrency: int = 0
    retries: int = 0
    retry_delay_s: float = 0.0
    notify: str = EACH
    description: str = ""


@dataclass(frozen=True)
class NewHandler:
    """What is registered. blob: the pickle; runtime: where it will run; packages: name -> version; requirements: PEP 508, sorted."""

    hook: str
    name: str
    owner: str
    tags: tuple[str, ...]
    notify_on_success: str
    notify_on_failure: str
    runtime: str
    blob: bytes
    python_version: str = ""
    dill_version: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    first_line: int = 0
    file_name: str = ""
    requirements: tuple[str, ...] = ()
    options: Options = Options()


@dataclass(frozen=True)
class HandlerView:
    """A living handler in its present version, without its code."""

    id: int
    hook: str
    name: str
    owner: str
    version: int
    tags: tuple[str, ...]
    notify_on_success: str
    notify_on_failure: str
    runtime: str
    created_by: str
    created_at_ms: int
    updated_by: str
    updated_at_ms: int
    paused: bool
    pause_reason: str = ""
    options: Options = Options()
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matchable:
    """What the dispatcher needs of a handler."""

    handler_id: int
    version: int
    hook: str
    tags: frozenset[str]
    owner: str
    runtime: str


@dataclass(frozen=True)
class HandlerCode:
    """A living handler and where its pickle is: digest is for blob()."""

    id: int
    hook: str
    name: str
    version: int
    owner: str
    digest: str
    requirements: tuple[str, ...] = ()


PRESENT = and_(HandlerVersionRow.handler_id == HandlerRow.id, HandlerVersionRow.version == HandlerRow.version)


def register(session: Session, new: NewHandler, by: str) -> HandlerView:
    """A new handler (version 0), or version n+1 of the living one of the same (hook, name), which keeps its id.

    Raises NotOwner when that one belongs to somebody else. Bumps the revision.
    """
    now = now_ms(session)
    bump(session)  # first, so that two registrations of one name come one after the other
    digest = _keep_blob(session, new.blob)
    row = session.scalar(
        select(HandlerRow).where(
            HandlerRow.hook == new.hook, HandlerRow.name == new.name, HandlerRow.removed_at_ms.is_(None)
        )
    )
    if row is None:
        row = HandlerRow(
            hook=new.hook,
            name=new.name,
            owner=new.owner,
            version=0,
            paused=False,
            created_by=by,
            created_at_ms=now,
            updated_by=by,
            updated_at_ms=now,
        )
        session.add(row)
        session.flush()
    else:
        if row.owner != new.owner:
            view = get_handler(session, row.id)
            assert view is not None
            raise NotOwner(view)
        row.version, row.updated_by, row.updated_at_ms = row.version + 1, by, now
    session.add(
        HandlerVersionRow(
            handler_id=row.id,
            version=row.version,
            digest=digest,
            tags=json.dumps(sorted(set(new.tags))),
            notify_on_success=new.notify_on_success,
            notify_on_failure=new.notify_on_failure,
            runtime=new.runtime,
            python_version=new.python_version,
            dill_version=new.dill_version,
            packages=json.dumps(dict(new.packages)),
            requirements=json.dumps(list(new.requirements)),
            source=new.source,
            first_line=new.first_line,
            file_name=new.file_name,
            created_by=by,
            created_at_ms=now,
            **asdict(new.options),
        )
    )
    session.flush()
    view = get_handler(session, row.id)
    assert view is not None
    return view


def list_handlers(
    session: Session, hook: str = "", *, name: str | None = None, owner: str | None = None
) -> list[HandlerView]:
    """The living handlers of that hook (empty: of all), name and owner (None: of all), by id. Of a hook and a name there is one at most."""
    wanted = ((HandlerRow.hook, hook or None), (HandlerRow.name, name), (HandlerRow.owner, owner))
    return _living(session, *(column == value for column, value in wanted if value is not None))


def get_handler(session: Session, handler_id: int) -> HandlerView | None:
    """The living handler of that id, or None."""
    return next(iter(_living(session, HandlerRow.id == handler_id)), None)


def living(session: Session, handler_id: int) -> HandlerView:
    """The living handler of that id. Raises NoSuchHandler."""
    view = get_handler(session, handler_id)
    if view is None:
        raise NoSuchHandler(f"no handler has the id {handler_id}")
    return view


def changeable(session: Session, handler_id: int, by: str, admin: bool) -> HandlerView:
    """The same. Raises NotOwner, too, unless by is its owner or admin is True."""
    view = living(session, handler_id)
    if view.owner != by and not admin:
        raise NotOwner(view)
    return view


def owner_of(session: Session, handler_id: int) -> str | None:
    """Whose handler it is, also when it was removed; None when there never was one of that id."""
    return session.scalar(select(HandlerRow.owner).where(HandlerRow.id == handler_id))


def remove(session: Session, handler_id: int, by: str, admin: bool) -> HandlerView:
    """Marks the handler removed; its runs that have not started are cancelled. Bumps the revision.

    Raises NoSuchHandler; NotOwner unless by is its owner or admin is True.
    """
    bump(session)
    view = changeable(session, handler_id, by, admin)
    now = now_ms(session)
    session.execute(update(HandlerRow).where(HandlerRow.id == handler_id).values(removed_by=by, removed_at_ms=now))
    change_queued(session, RunRow.handler_id == handler_id, state=Outcome.CANCELLED.value, ended_at_ms=now)
    return view


def revision(session: Session) -> int:
    """A number that changes with every change of what can match."""
    return session.scalar(select(RevisionRow.number)) or 0


def matchable(session: Session) -> list[Matchable]:
    """The handlers that events may meet: alive and not paused, by id."""
    query = (
        select(
            HandlerRow.id,
            HandlerRow.version,
            HandlerRow.hook,
            HandlerVersionRow.tags,
            HandlerRow.owner,
            HandlerVersionRow.runtime,
        )
        .join(HandlerVersionRow, PRESENT)
        .where(HandlerRow.removed_at_ms.is_(None), HandlerRow.paused.is_(False))
        .order_by(HandlerRow.id)
    )
    return [
        Matchable(handler_id, version, hook, frozenset(json.loads(tags)), owner, runtime)
        for handler_id, version, hook, tags, owner, runtime in session.execute(query)
    ]


def codes(session: Session, runtime: str) -> list[HandlerCode]:
    """The living handlers that run in a runtime, by id."""
    query = (
        select(
            HandlerRow.id,
            HandlerRow.hook,
            HandlerRow.name,
            HandlerRow.version,
            HandlerRow.owner,
            HandlerVersionRow.digest,
            HandlerVersionRow.requirements,
        )
        .join(HandlerVersionRow, PRESENT)
        .where(HandlerRow.removed_at_ms.is_(None), HandlerVersionRow.runtime == runtime)
        .order_by(HandlerRow.id)
    )
    return [HandlerCode(*row[:-1], tuple(json.loads(row[-1]))) for row in session.execute(query)]


def blob(session: Session, digest: str) -> bytes | None:
    """The pickle with that SHA-256 (hex), or None."""
    return session.scalar(select(BlobRow.body).where(BlobRow.digest == digest))


def _keep_blob(session: Session, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    if session.scalar(select(BlobRow.digest).where(BlobRow.digest == digest)) is None:
        session.execute(insert(BlobRow).values(digest=digest, body=body))
    return digest


def bump(session: Session) -> None:
    """The row's lock orders all writers of the registry."""
    changed = session.execute(update(RevisionRow).where(RevisionRow.id == 1).values(number=RevisionRow.number + 1))
    if changed.rowcount == 0:  # type: ignore[attr-defined]
        session.execute(insert(RevisionRow).values(id=1, number=1))
    if is_postgresql(session):
        session.flush()


def _living(session: Session, *which: ColumnElement[bool]) -> list[HandlerView]:
    query = select(HandlerRow, HandlerVersionRow).join(HandlerVersionRow, PRESENT)
    query = query.where(HandlerRow.removed_at_ms.is_(None), *which).order_by(HandlerRow.id)
    return [_view(row, version) for row, version in session.execute(query)]


def _view(row: HandlerRow, version: HandlerVersionRow) -> HandlerView:
    return HandlerView(
        row.id,
        row.hook,
        row.name,
        row.owner,
        row.version,
        tuple(json.loads(version.tags)),
        version.notify_on_success,
        version.notify_on_failure,
        version.runtime,
        row.created_by,
        row.created_at_ms,
        row.updated_by,
        row.updated_at_ms,
        row.paused,
        row.pause_reason,
        options_of(version),
        tuple(json.loads(version.requirements)),
    )


def options_of(version: HandlerVersionRow) -> Options:
    """The options of a version."""
    return Options(**{one.name: getattr(version, one.name) for one in fields(Options)})
