"""What happened: runs, their texts and logs; and what a handler was: its versions and their source."""

import re
import time
from typing import Any, Iterator, List, Optional, Union

from btrdbextras.conn import Connection
from btrdbextras.errors import NoServer
from btrdbextras.eventproc import rows, wire
from btrdbextras.eventproc import since as times
from btrdbextras.eventproc.call import call, calling
from btrdbextras.eventproc.rows import Handler, Run, RunReport, Source, Version

__all__ = ["follow", "run", "runs", "source", "versions"]

STATES = (
    "queued", "running", "succeeded", "failed", "timed_out", "out_of_memory", "crashed", "refused", "abandoned",
    "cancelled",
)  # fmt: skip
PAGE = 500
AGAIN_S = 1.0
AWAY_S = 60.0
Named = Union[int, str, Handler]


def runs(
    conn: Connection,
    handler: Optional[Named] = None,
    hook: Optional[str] = None,
    state: Optional[str] = None,
    since: Any = None,
    limit: int = 100,
    owner: Optional[str] = None,
) -> List[Run]:
    """Your runs, the newest first; an admin sees everybody's. A table in a notebook.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler, optional
        Only runs of this handler: its id, its name, or an entry of list_handlers(conn).
    hook: str, optional
        Only runs of this hook's handlers.
    state: str, optional
        Only runs in this state: queued, running, succeeded, failed, timed_out, out_of_memory, crashed, refused, abandoned or
        cancelled.
    since: datetime, timedelta, str or int, optional
        Only runs queued since then: a datetime (a naive one is UTC), how long ago as a timedelta or as text ('2h', '7d'), a time as
        text ('2026-01-31T12:00:00Z'), or ns since the epoch.
    limit: int
        At most so many.
    owner: str, optional
        Only runs of this user's handlers; for admins.

    Returns
    -------
    list of Run

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be right.
    EventProcError
        See btrdbextras.errors; OlderPlatform where the platform does not tell of runs yet.

    Example
    -------
    >>> runs(conn, 'peaks', state='failed', since='7d')
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError("limit %r should be an int, 1 or more" % (limit,))
    if state is not None and state not in STATES:
        raise ValueError("state %r should be one of %s" % (state, ", ".join(STATES)))
    request = wire.message("ListRunsRequest")(
        hook=_text("hook", hook), state=state or "", since_ms=_since(since), owner=_text("owner", owner)
    )
    if handler is not None:
        request.handler.CopyFrom(named(handler))
    found: List[Any] = []
    while True:
        request.limit = min(limit - len(found), PAGE)
        answer = call(conn, "ListRuns", request)
        found += answer.runs
        if not answer.next_page or len(found) >= limit:
            return rows.runs(found[:limit])
        request.after = answer.next_page


def run(conn: Connection, id: Union[str, Run]) -> RunReport:
    """All that is known of a run: what it returned, raised and printed, its times, CPU time and peak memory, files, attempts.

    Parameters
    ----------
    conn: Connection
    id: str or Run
        As runs(conn) shows it, and the email of the run.

    Returns
    -------
    RunReport

    Raises
    ------
    EventProcError
        UnknownRun for an unknown id, NotYours when it is somebody else's.
    """
    return rows.report(call(conn, "GetRun", wire.message("GetRunRequest")(id=run_id(id))))


def follow(conn: Connection, id: Union[str, Run]) -> Iterator[str]:
    """What a run prints, piece by piece, from its beginning until it ends; blocks between pieces, also while it waits to start.

    A run that is started again begins its log anew; a line says so. Once it has answered, the platform being away for a moment ends
    nothing.

    Parameters
    ----------
    conn: Connection
    id: str or Run

    Returns
    -------
    iterator of str

    Raises
    ------
    TypeError, ValueError
        At once, for an id that cannot be one.
    EventProcError
        While it goes on: UnknownRun, NotYours, NoServer.

    Example
    -------
    >>> for text in follow(conn, runs(conn, 'peaks')[0]):
    ...     print(text, end='')
    """
    return _pieces(conn, wire.message("ReadLogRequest")(id=run_id(id)))


def _pieces(conn: Connection, request: Any) -> Iterator[str]:
    answered = False
    away_since: Optional[float] = None
    with calling(conn) as ask:
        while True:
            try:
                answer = ask("ReadLog", request)
                answered, away_since = True, None
            except NoServer:
                away_since = time.monotonic() if away_since is None else away_since
                if not answered or time.monotonic() - away_since > AWAY_S:
                    raise
                time.sleep(AGAIN_S)
                continue
            if request.attempt and answer.attempt != request.attempt:
                yield "\n--- attempt %d ---\n" % answer.attempt
            if answer.text:
                yield answer.text
            if answer.ended:
                return
            request.attempt, request.at = answer.attempt, answer.at
            time.sleep(AGAIN_S)


def printed(conn: Connection, id: Union[str, Run]) -> Iterator[str]:
    """What a run has printed so far, in one piece."""
    return iter([call(conn, "ReadLog", wire.message("ReadLogRequest")(id=run_id(id))).text])


def versions(conn: Connection, handler: Named) -> List[Version]:
    """The versions of a handler, the newest first; its owner's and admins' to see. A table in a notebook.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler
        Its id, its name, or an entry of list_handlers(conn).

    Returns
    -------
    list of Version
    """
    return rows.versions(
        call(conn, "ListVersions", wire.message("ListVersionsRequest")(handler=named(handler))).versions
    )


def source(conn: Connection, handler: Named, version: Optional[int] = None, blob: bool = False) -> Source:
    """The code of a handler as it was registered; its owner's and admins' to see.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler
        Its id, its name, or an entry of list_handlers(conn).
    version: int, optional
        Default: the present one.
    blob: bool
        Whether the pickle is wanted too. Load one only if you trust who made it.

    Returns
    -------
    Source
        With text, file_name, first_line, version, blob.
    """
    request = wire.message("GetSourceRequest")(handler=named(handler), version=number(version), with_blob=bool(blob))
    answer = call(conn, "GetSource", request)
    return Source(answer.source, answer.file_name, answer.first_line, answer.version, answer.blob)


def named(handler: Named) -> Any:
    """The message HandlerRef. Raises TypeError, ValueError."""
    ref = wire.message("HandlerRef")
    if isinstance(handler, Handler):
        return ref(id=handler.id)
    if isinstance(handler, str) and handler.strip():
        return ref(name=handler)
    if isinstance(handler, bool) or not isinstance(handler, int):
        raise TypeError("handler should be an id, a name or an entry of list_handlers(conn); it is %r" % (handler,))
    if not 0 < handler < 2**31:
        raise ValueError("handler %d is no id; list_handlers(conn) shows them" % handler)
    return ref(id=handler)


def number(version: Optional[int]) -> int:
    """-1 for None. Raises TypeError, ValueError."""
    if version is None:
        return -1
    if isinstance(version, bool) or not isinstance(version, int):
        raise TypeError("version should be an int; it is %r" % (version,))
    if not 0 <= version < 2**31:
        raise ValueError("version %d is none; versions(conn, handler) shows them" % version)
    return version


def run_id(given: Any) -> str:
    """Raises TypeError, ValueError for what cannot be one."""
    found = given.id if isinstance(given, Run) else given
    if not isinstance(found, str):
        raise TypeError("id should be a run's id as text, or an entry of runs(conn); it is %r" % (given,))
    if not re.match(r"\s*[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\s*$", found):
        raise ValueError(
            "%r is no id of a run; runs(conn) shows them, for instance 6f0e9d0c-7a53-5c0e-9d50-0a8a3f6e2c11" % found
        )
    return found.strip().lower()


def _since(value: Any) -> int:
    return times.moment_ms("since", value)


def _text(field: str, value: Optional[str]) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("%s should be a str; it is a %s" % (field, type(value).__name__))
    return value or ""
