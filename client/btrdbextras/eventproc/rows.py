"""What the platform answers with, as namedtuples; times are aware datetimes in UTC, None for what has not happened yet."""

import datetime
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from btrdbextras.eventproc.table import Table, as_html, as_text, shown, size

_MS = 1000000


class _Handler(NamedTuple):
    id: int
    name: str
    hook: str
    version: int
    notify_on_success: str
    notify_on_failure: str
    tags: List[str]
    created_at: datetime.datetime
    created_by: str
    updated_at: datetime.datetime
    updated_by: str


class Handler(_Handler):
    """A registered function. created_at, updated_at: aware datetimes in UTC; version: 0 for the first registration.

    Beside the namedtuple's eleven fields: runtime, for instance 'py3.11'; paused and pause_reason; options, a dict of what it was
    registered with (timeout and retry_delay in s, memory in bytes; 0 or '': as the platform does it for everybody); requirements.
    """

    runtime = ""
    paused = False
    pause_reason = ""
    options: Mapping[str, Any] = {}
    requirements: Sequence[str] = ()

    @property
    def state(self) -> str:
        """'' or 'paused', with the reason where it was not a person who paused it."""
        return ("paused: " + self.pause_reason if self.pause_reason else "paused") if self.paused else ""


class Run(NamedTuple):
    """A run of a handler at an event.

    state: queued, running, or how it ended: succeeded, failed, timed_out, out_of_memory, crashed, refused, abandoned,
    cancelled. subject: for instance the archive's name. error: one line, '' for none. attempts: how often it was started.
    """

    id: str
    handler: str
    version: int
    hook: str
    subject: str
    state: str
    queued_at: datetime.datetime
    started_at: Optional[datetime.datetime]
    ended_at: Optional[datetime.datetime]
    error: str
    attempts: int
    owner: str
    request_id: str
    handler_id: int

    @property
    def seconds(self) -> Optional[float]:
        """How long it took, from its start to its end."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class RunFile(NamedTuple):
    """A file that a run uploaded. size: bytes; link: where it can be downloaded, with an API key."""

    name: str
    size: int
    link: str


class Attempt(NamedTuple):
    """One start of a run. reason: how it ended, '' for not yet."""

    number: int
    executor: str
    started_at: Optional[datetime.datetime]
    ended_at: Optional[datetime.datetime]
    reason: str


class RunReport(NamedTuple):
    """All that is known of a run. run: its line in runs(); text: what the handler returned; traceback: of what it raised.

    log: what it printed; log_truncated: its middle was too long and is left out; cpu_seconds; peak_memory: bytes;
    files: list of RunFile; attempts: list of Attempt; replay_of: id of the run that it repeats, or ''; tags: the event's.
    """

    run: Run
    text: str
    error_type: str
    error_message: str
    traceback: str
    log: str
    log_truncated: bool
    cpu_seconds: float
    peak_memory: int
    files: List[RunFile]
    attempts: List[Attempt]
    replay_of: str
    runtime: str
    tags: List[str]

    def _parts(self) -> List[Tuple[str, str]]:
        run = self.run
        times = "queued %s" % shown(run.queued_at)
        for word, when in (("started", run.started_at), ("ended", run.ended_at)):
            times += ", %s %s" % (word, shown(when)) if when else ""
        if run.seconds is not None:
            times += " (%.1f s, CPU %.1f s, peak memory %s)" % (run.seconds, self.cpu_seconds, size(self.peak_memory))
        error = self.traceback.rstrip() or ("%s: %s" % (self.error_type, self.error_message)).strip(": ") or run.error
        tries = ["%d on %s: %s" % (one.number, one.executor, one.reason or "not ended") for one in self.attempts]
        files = ["%s (%s) %s" % (one.name, size(one.size), one.link) for one in self.files]
        return [
            ("Run", run.id), ("Times (UTC)", times), ("Returned", self.text), ("Raised", error),
            ("Log, its middle left out" if self.log_truncated else "Log", self.log.rstrip()),
            ("Files", "\n".join(files)), ("Attempts", "\n".join(tries if len(tries) > 1 else [])), ("Repeats", self.replay_of),
        ]  # fmt: skip

    def _head(self) -> str:
        run = self.run
        return "%s (version %d) for %s: %s" % (run.handler, run.version, run.subject or run.request_id, run.state)

    def __repr__(self) -> str:
        return as_text(self._head(), self._parts())

    def _repr_html_(self) -> str:
        return as_html(self._head(), self._parts())


class Version(NamedTuple):
    """A handler as it was registered once. present: whether it is the one that runs; digest: SHA-256 of its pickle."""

    handler_id: int
    version: int
    present: bool
    created_at: datetime.datetime
    created_by: str
    runtime: str
    python_version: str
    tags: List[str]
    notify_on_success: str
    notify_on_failure: str
    options: Dict[str, Any]
    requirements: List[str]
    digest: str
    has_source: bool


class Source(NamedTuple):
    """The code of a version. text: '' where its client could not find it; blob: the pickle, b'' unless asked for."""

    text: str
    file_name: str
    first_line: int
    version: int
    blob: bytes


class Replayed(NamedTuple):
    """A run that a replay makes. replay_of: the run that it repeats, '' where there was none; was_there: made by it before."""

    run_id: str
    request_id: str
    subject: str
    replay_of: str
    was_there: bool


_HANDLERS = [
    ("id", "id"), ("name", "name"), ("hook", "hook"), ("version", "version"), ("tags", "tags"), ("runs on", "runtime"),
    ("owner", "created_by"), ("updated (UTC)", "updated_at"), ("success", "notify_on_success"), ("failure", "notify_on_failure"),
    ("", "state"),
]  # fmt: skip
_RUNS = [
    ("queued (UTC)", "queued_at"), ("handler", "handler"), ("version", "version"), ("for", "subject"), ("state", "state"),
    ("seconds", "seconds"), ("error", "error"), ("id", "id"),
]  # fmt: skip
_VERSIONS = [
    ("version", "version"), ("present", "present"), ("registered (UTC)", "created_at"), ("by", "created_by"), ("runs on", "runtime"),
    ("tags", "tags"), ("success", "notify_on_success"), ("failure", "notify_on_failure"),
]  # fmt: skip
_REPLAYED = [
    ("for", "subject"),
    ("RequestID", "request_id"),
    ("run", "run_id"),
    ("repeats", "replay_of"),
    ("was there", "was_there"),
]


def handlers(sent: Iterable[Any]) -> Table:
    """Of Handler."""
    return Table([handler(one) for one in sent], _HANDLERS)


def runs(sent: Iterable[Any]) -> Table:
    """Of Run."""
    return Table([run(one) for one in sent], _RUNS)


def versions(sent: Iterable[Any]) -> Table:
    """Of Version."""
    return Table([version(one) for one in sent], _VERSIONS)


def replayed(sent: Iterable[Any]) -> Table:
    """Of Replayed."""
    found = [Replayed(one.run_id, one.request_id, one.subject, one.replay_of, one.was_there) for one in sent]
    return Table(found, _REPLAYED)


def handler(sent: Any) -> Handler:
    """From the message Handler."""
    made = Handler(
        sent.id, sent.name, sent.hook, sent.version, sent.notify_on_success, sent.notify_on_failure, list(sent.tag),
        instant(sent.created_at), sent.created_by, instant(sent.updated_at), sent.updated_by,
    )  # fmt: skip
    made.runtime, made.paused, made.pause_reason = sent.runtime, sent.paused, sent.pause_reason
    made.options, made.requirements = options(sent.options), list(sent.requirements)
    return made


def options(sent: Any) -> Dict[str, Any]:
    """From the message Options."""
    return {
        "timeout": sent.timeout_s, "memory": sent.memory_bytes, "max_concurrency": sent.max_concurrency, "retries": sent.retries,
        "retry_delay": sent.retry_delay_s, "notify": sent.notify, "description": sent.description,
    }  # fmt: skip


def run(sent: Any) -> Run:
    """From the message RunLine."""
    return Run(
        sent.id, sent.handler, sent.version, sent.hook, sent.subject, sent.state, instant(sent.queued_at_ms * _MS),
        _maybe(sent.started_at_ns), _maybe(sent.ended_at_ns), sent.error, sent.attempts, sent.owner, sent.request_id, sent.handler_id,
    )  # fmt: skip


def report(sent: Any) -> RunReport:
    """From the message GetRunResponse."""
    files = [RunFile(one.name, one.size, one.link) for one in sent.files]
    attempts = [
        Attempt(one.number, one.executor, _maybe(one.claimed_at_ms * _MS), _maybe(one.ended_at_ms * _MS), one.reason)
        for one in sent.attempts
    ]
    return RunReport(
        run(sent.run), sent.text, sent.error_type, sent.error_message, sent.error_traceback, sent.log, sent.log_truncated, sent.cpu_s,
        sent.peak_memory_bytes, files, attempts, sent.replay_of, sent.runtime, list(sent.tags),
    )  # fmt: skip


def version(sent: Any) -> Version:
    """From the message HandlerVersion."""
    return Version(
        sent.handler_id, sent.version, sent.present, instant(sent.created_at_ms * _MS), sent.created_by, sent.runtime,
        sent.python_version, list(sent.tags), sent.notify_on_success, sent.notify_on_failure, options(sent.options),
        list(sent.requirements), sent.digest, sent.has_source,
    )  # fmt: skip


def instant(ns: int) -> datetime.datetime:
    """An aware datetime in UTC of ns since the epoch."""
    whole, rest = divmod(ns, 1000000000)
    return datetime.datetime.fromtimestamp(whole, datetime.timezone.utc).replace(microsecond=rest // 1000)


def _maybe(ns: int) -> Optional[datetime.datetime]:
    return instant(ns) if ns else None
