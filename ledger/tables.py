"""The ledger's tables. Times are the database's, ms since the epoch, unless a name says ns."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

QUEUED, RUNNING, REPORTED = "queued", "running", "reported"
PENDING, SENDING, SENT, GIVEN_UP = "pending", "sending", "sent", "given_up"

Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER PRIMARY KEYs


class Table(DeclarativeBase):
    """Where the migrations look for what the tables should be."""


def _ended(name: str) -> Index:
    """Finds what has ended by when, for those that are removed for their age."""
    where = text("ended_at_ms IS NOT NULL")
    return Index(name, "ended_at_ms", sqlite_where=where, postgresql_where=where)


class HandlerRow(Table):
    """One per (hook, name) alive; never deleted, only marked removed."""

    __tablename__ = "handler"
    __table_args__ = (
        Index(
            "handler_alive", "hook", "name", unique=True,
            sqlite_where=text("removed_at_ms IS NULL"), postgresql_where=text("removed_at_ms IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )  # fmt: skip
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    hook: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200))
    owner: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(Integer)
    paused: Mapped[bool] = mapped_column(Boolean, default=False)
    pause_reason: Mapped[str] = mapped_column(String(200), default="", server_default="")  # '': a person paused it
    created_by: Mapped[str] = mapped_column(String(200))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    updated_by: Mapped[str] = mapped_column(String(200))
    updated_at_ms: Mapped[int] = mapped_column(BigInteger)
    removed_by: Mapped[str | None] = mapped_column(String(200))
    removed_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class BlobRow(Table):
    """A pickle, by its SHA-256 in hex; immutable."""

    __tablename__ = "blob"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class HandlerVersionRow(Table):
    """What was registered; immutable. tags, packages and requirements are JSON."""

    __tablename__ = "handler_version"
    handler_id: Mapped[int] = mapped_column(ForeignKey("handler.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(ForeignKey("blob.digest"))
    tags: Mapped[str] = mapped_column(Text)
    notify_on_success: Mapped[str] = mapped_column(String(400))
    notify_on_failure: Mapped[str] = mapped_column(String(400))
    runtime: Mapped[str] = mapped_column(String(100))
    python_version: Mapped[str] = mapped_column(String(100))
    dill_version: Mapped[str] = mapped_column(String(100))
    packages: Mapped[str] = mapped_column(Text)
    requirements: Mapped[str] = mapped_column(Text, default="[]", server_default="[]")
    source: Mapped[str] = mapped_column(Text)
    first_line: Mapped[int] = mapped_column(Integer)
    file_name: Mapped[str] = mapped_column(Text)
    timeout_s: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    max_concurrency: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    retries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    retry_delay_s: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    notify: Mapped[str] = mapped_column(String(10), default="each", server_default="each")
    description: Mapped[str] = mapped_column(Text, default="", server_default="")
    created_by: Mapped[str] = mapped_column(String(200))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class RevisionRow(Table):
    """One row, bumped by every change of what can match."""

    __tablename__ = "revision"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)


class CredentialRow(Table):
    """The API key last registered by an owner, sealed."""

    __tablename__ = "credential"
    owner: Mapped[str] = mapped_column(String(200), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at_ms: Mapped[int] = mapped_column(BigInteger)
    refused_at_ms: Mapped[int | None] = mapped_column(BigInteger)  # when BTrDB refused it; its owner's runs wait since


class EventRow(Table):
    """An event with its matches, frozen at its first dispatch: JSON [[handler id, version], ...]."""

    __tablename__ = "event"
    __table_args__ = (Index("event_received", "received_at_ms"),)
    hook: Mapped[str] = mapped_column(String(200), primary_key=True)
    request_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    submitted_at: Mapped[str] = mapped_column(String(40))
    tags: Mapped[str] = mapped_column(Text)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    matches: Mapped[str] = mapped_column(Text)
    received_at_ms: Mapped[int] = mapped_column(BigInteger)
    runs_removed: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # of its matches', for their age


class RunRow(Table):
    """One handler's run for one event: queued <-> running -> reported -> an outcome, which is never written over."""

    __tablename__ = "run"
    __table_args__ = (
        Index("run_of_event", "hook", "request_id"),
        Index("run_owner_state", "owner", "state"),
        Index("run_handler_state", "handler_id", "state"),
        Index("run_newest", "queued_at_ms", "id"),
        Index("run_of_owner", "owner", "queued_at_ms", "id"),
        Index("run_of_handler", "handler_id", "queued_at_ms", "id"),
        *(
            Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
            for name, columns, where in (
                ("run_held", ("lease_until_ms",), "lease_until_ms IS NOT NULL"),
                ("run_waiting", ("owner", "runtime", "handler_id", "queued_at_ms", "id"), "state = 'queued'"),
                ("run_due", ("runtime", "not_before_ms"), "state = 'queued'"),
                ("run_invited", ("owner", "invited_at_ms"), "invited_at_ms IS NOT NULL"),
                ("run_ended", ("ended_at_ms",), "ended_at_ms IS NOT NULL AND texts_removed_at_ms IS NULL"),
                ("run_without_texts", ("ended_at_ms",), "texts_removed_at_ms IS NOT NULL"),
            )
        ),
    )  # fmt: skip
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    hook: Mapped[str] = mapped_column(String(200))
    request_id: Mapped[str] = mapped_column(String(36))
    handler_id: Mapped[int] = mapped_column(ForeignKey("handler.id"))
    handler_version: Mapped[int] = mapped_column(Integer)
    replay_id: Mapped[str] = mapped_column(String(36), default="", server_default="")
    replay_of: Mapped[str | None] = mapped_column(String(36))  # the run that it does again
    owner: Mapped[str] = mapped_column(String(200))
    runtime: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    queued_at_ms: Mapped[int] = mapped_column(BigInteger)
    not_before_ms: Mapped[int] = mapped_column(BigInteger)
    invited_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    lease_hash: Mapped[str | None] = mapped_column(String(64))
    lease_until_ms: Mapped[int | None] = mapped_column(BigInteger)
    boot_hash: Mapped[str | None] = mapped_column(String(64))
    claims: Mapped[int] = mapped_column(Integer, default=0)
    lost: Mapped[int] = mapped_column(Integer, default=0)
    lost_together: Mapped[int] = mapped_column(Integer, default=0)
    lost_with: Mapped[str | None] = mapped_column(String(64))  # the boot that it was lost with, beside others
    hand_backs: Mapped[int] = mapped_column(Integer, default=0)
    retried: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # as its handler asks for
    reported_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    text: Mapped[str] = mapped_column(Text, default="")
    error_type: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    error_traceback: Mapped[str | None] = mapped_column(Text)
    log: Mapped[str] = mapped_column(Text, default="")
    log_truncated: Mapped[bool] = mapped_column(Boolean, default=False)
    uploads: Mapped[str] = mapped_column(Text, default="[]")
    started_at_ns: Mapped[int] = mapped_column(BigInteger, default=0)
    ended_at_ns: Mapped[int] = mapped_column(BigInteger, default=0)
    cpu_s: Mapped[float] = mapped_column(Float, default=0.0)
    peak_memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    # text, log, message and traceback, for their age
    texts_removed_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    traceparent: Mapped[str] = mapped_column(String(55), default="", server_default="")  # W3C; where its email belongs
    mail_removed: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())


class AttemptRow(Table):
    """One claim of a run: who had it and why it ended. The lease id follows from salt and the executor's secret boot id."""

    __tablename__ = "attempt"
    __table_args__ = (
        Index("attempt_claim", "boot_hash", "nonce"),
        Index("attempt_run", "run_id", "number", unique=True),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    number: Mapped[int] = mapped_column(Integer)
    boot_hash: Mapped[str] = mapped_column(String(64))
    nonce: Mapped[str] = mapped_column(String(64))
    salt: Mapped[str] = mapped_column(String(64))
    executor: Mapped[str] = mapped_column(String(200))
    claimed_at_ms: Mapped[int] = mapped_column(BigInteger)
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    begun: Mapped[bool] = mapped_column(Boolean, default=False)
    reason: Mapped[str] = mapped_column(Text, default="")


class ExecutorRow(Table):
    """An executor's process and its slots; runtimes is JSON. Rows of those that are gone are swept after an hour."""

    __tablename__ = "executor"
    boot_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    slots: Mapped[int] = mapped_column(Integer)
    runtimes: Mapped[str] = mapped_column(Text)
    seen_at_ms: Mapped[int] = mapped_column(BigInteger)


class RunLogRow(Table):
    """A piece of what a run that is going on has printed: characters at up to until; gone when its attempt ends."""

    __tablename__ = "run_log"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    until: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)


class NotificationRow(Table):
    """The outbox: one row per email."""

    __tablename__ = "notification"
    __table_args__ = (
        Index("notification_due", "state", "not_before_ms"),
        Index("notification_recent", "recipient", "kind", "created_at_ms"),
        _ended("notification_ended"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    message_id: Mapped[str] = mapped_column(String(100), unique=True)
    recipient: Mapped[str] = mapped_column(String(400))
    kind: Mapped[str] = mapped_column(String(20))
    digest: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    state: Mapped[str] = mapped_column(String(20))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    not_before_ms: Mapped[int] = mapped_column(BigInteger)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    sender: Mapped[str | None] = mapped_column(String(200))
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text, default="")


class NotificationRunRow(Table):
    """Which runs an email accounts for; a run is in one email at most."""

    __tablename__ = "notification_run"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    notification_id: Mapped[int] = mapped_column(ForeignKey("notification.id"), index=True)


class FileRow(Table):
    """A file that a handler uploaded; code: 32 hex digits of the client's choosing, the first that comes keeps it."""

    __tablename__ = "file"
    __table_args__ = (Index("file_created", "created_at_ms"), Index("file_run", "run_id"))
    code: Mapped[str] = mapped_column(String(32), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    owner: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    removed_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class ArchiveRow(Table):
    """An uploaded archive. sealed: the uploader's key, emptied at the end; tags, data_sets: JSON; once: see ledger/archives.py."""

    __tablename__ = "archive"
    __table_args__ = (
        Index("archive_once", "owner", "once", unique=True),
        Index("archive_due", "state", "not_before_ms"),
        _ended("archive_ended"),
    )
    request_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    file_name: Mapped[str] = mapped_column(Text)
    stored: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    tags: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    zone: Mapped[str | None] = mapped_column(String(100))
    submitted_at: Mapped[str] = mapped_column(String(40))
    once: Mapped[str | None] = mapped_column(String(300))
    state: Mapped[str] = mapped_column(String(20))
    error: Mapped[str] = mapped_column(Text)
    data_sets: Mapped[str] = mapped_column(Text)
    tries: Mapped[int] = mapped_column(Integer)
    lost: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    not_before_ms: Mapped[int] = mapped_column(BigInteger)
    worker: Mapped[str | None] = mapped_column(String(64))
    lease_until_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class RedrivenRow(Table):
    """A dead letter that was sent again; number: its offset in the topic of dead letters."""

    __tablename__ = "redriven"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    by: Mapped[str] = mapped_column(String(200))


class LoadCheckRow(Table):
    """A handler that waits to be loaded for its registration, for seconds; requirements and verdict are JSON."""

    __tablename__ = "load_check"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    runtime: Mapped[str] = mapped_column(String(100))
    hook: Mapped[str] = mapped_column(String(200))
    blob: Mapped[bytes] = mapped_column(LargeBinary)
    requirements: Mapped[str] = mapped_column(Text)
    asked_at_ms: Mapped[int] = mapped_column(BigInteger)
    taken: Mapped[bool] = mapped_column(Boolean)
    verdict: Mapped[str | None] = mapped_column(Text)


class AuditRow(Table):
    """An act of a person (ledger/audit.py); nobody changes one. detail is JSON."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("audit_at", "at_ms"),
        Index("audit_thing", "kind", "thing", "at_ms"),
        Index("audit_who", "who", "at_ms"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    peer: Mapped[str] = mapped_column(String(200))
    act: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20))
    thing: Mapped[str] = mapped_column(String(200))
    detail: Mapped[str] = mapped_column(Text)


class TallyRow(Table):
    """How many of a kind were removed for their age, by the day (ms, its beginning in UTC) in which they were made.

    kind: event, expected (runs that follow from their matches), run, replayed, email; word: the state.
    """

    __tablename__ = "tally"
    day_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    word: Mapped[str] = mapped_column(String(20), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class LeaderRow(Table):
    """Who does what only one may do at a time, and until when."""

    __tablename__ = "leader"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(64))
    until_ms: Mapped[int] = mapped_column(BigInteger)


class HeartbeatRow(Table):
    """Since when the registry has been answering without a gap."""

    __tablename__ = "heartbeat"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    since_ms: Mapped[int] = mapped_column(BigInteger)
    last_ms: Mapped[int] = mapped_column(BigInteger)
