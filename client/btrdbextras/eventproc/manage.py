"""A handler's life after it was registered: pause, resume, rollback, replay; and a new API key."""

import uuid
from typing import Any, List, Optional, Tuple

from btrdbextras.conn import Connection
from btrdbextras.eventproc import rows, wire
from btrdbextras.eventproc import since as times
from btrdbextras.eventproc.call import call
from btrdbextras.eventproc.look import Named, named, number
from btrdbextras.eventproc.rows import Handler, Replayed

__all__ = ["pause", "rekey", "replay", "resume", "rollback"]

ONLY = ("missing", "failed")


def pause(conn: Connection, handler: Named) -> Handler:
    """Pauses a handler: events that come meanwhile do not run it; what has begun, or waits already, goes on.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler
        Its id, its name, or an entry of list_handlers(conn): yours, or, for an admin, anybody's.

    Returns
    -------
    Handler
        As it is now.
    """
    return _changed(conn, "Pause", handler)


def resume(conn: Connection, handler: Named) -> Handler:
    """Ends a pause. replay(conn, handler, since=..., only='missing') runs it for what it has missed.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler
        Its id, its name, or an entry of list_handlers(conn): yours, or, for an admin, anybody's.

    Returns
    -------
    Handler
        As it is now.

    Raises
    ------
    EventProcError
        InvalidRequest when it is paused because BTrDB refuses your API key: rekey(conn) with a good one ends that.
    """
    return _changed(conn, "Resume", handler)


def rollback(conn: Connection, handler: Named, version: int) -> Handler:
    """Makes a new version of what an old one was: its function, tags, addresses and options. The id stays.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler
        Its id, its name, or an entry of list_handlers(conn): yours, or, for an admin, anybody's.
    version: int
        As versions(conn, handler) shows it.

    Returns
    -------
    Handler
        As it is now, with its new version's number.
    """
    if version is None:
        raise TypeError("version should be an int; versions(conn, handler) shows them")
    request = wire.message("RollbackRequest")(handler=named(handler), version=number(version))
    return rows.handler(call(conn, "Rollback", request).handler)


def replay(
    conn: Connection,
    handler: Named,
    since: Any,
    until: Any = None,
    dry_run: bool = False,
    only: Optional[str] = None,
    replay_id: Optional[str] = None,
) -> List[Replayed]:
    """Runs a handler, as it is now, for events of the past that its tags match. Each run has its own id and email.

    Parameters
    ----------
    conn: Connection
    handler: int, str or Handler
        Its id, its name, or an entry of list_handlers(conn): yours, or, for an admin, anybody's.
    since: datetime, timedelta, str or int
        Events received from then on: a datetime (a naive one is UTC), how long ago as a timedelta or as text ('2h', '30d'), a time
        as text ('2026-01-31T12:00:00Z'), or ns since the epoch.
    until: datetime, timedelta, str or int, optional
        Events received before then. Default: until now.
    dry_run: bool
        Makes nothing; what is returned is what would run.
    only: str, optional
        'missing': events that it has not run for; 'failed': those whose run did not succeed. Default: all.
    replay_id: str, optional
        A UUID. The same again, after a call was cut off, say, makes no run twice. Default: a new one.

    Returns
    -------
    list of Replayed

    Example
    -------
    >>> replay(conn, 'peaks', since='30d', dry_run=True)
    """
    if since is None:
        raise TypeError("since should say from when on events are run again, as in since='7d'")
    if only is not None and only not in ONLY:
        raise ValueError("only %r should be 'missing', 'failed' or None" % (only,))
    request = wire.message("ReplayRequest")(
        handler=named(handler),
        since_ms=times.moment_ms("since", since),
        until_ms=times.moment_ms("until", until),
        dry_run=bool(dry_run),
        replay_id=_uuid(replay_id),
        only=only or "",
    )
    if until is not None and request.since_ms >= request.until_ms:
        raise ValueError("since should be before until")
    found: List[Any] = []
    while True:
        answer = call(conn, "Replay", request)
        found += answer.runs
        if not answer.next_page:
            return rows.replayed(found)
        request.after = answer.next_page


def rekey(conn: Connection) -> List[Handler]:
    """Has all your handlers run under the connection's API key from now on, without registering them anew.

    Handlers that were paused because BTrDB refused the key before are resumed, and their waiting runs go on.

    Parameters
    ----------
    conn: Connection
        With your new key.

    Returns
    -------
    list of Handler
        Those that were resumed.
    """
    count, resumed = sealed(conn)
    print(told(count, resumed))
    return resumed


def sealed(conn: Connection) -> Tuple[int, List[Handler]]:
    """rekey() without its line: how many handlers run under the key now, and those that were resumed."""
    answer = call(conn, "Rekey", wire.message("RekeyRequest")())
    return answer.handlers, rows.handlers(answer.resumed)


def told(count: int, resumed: List[Handler]) -> str:
    """The line for people."""
    more = "; resumed: %s" % ", ".join(one.name for one in resumed) if resumed else ""
    return "handlers that run under this API key now: %d%s" % (count, more)


def _changed(conn: Connection, method: str, handler: Named) -> Handler:
    request = wire.message(method + "Request")(handler=named(handler))
    return rows.handler(call(conn, method, request).handler)


def _uuid(given: Optional[str]) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except (TypeError, ValueError, AttributeError):
        raise ValueError("replay_id %r should be a UUID as text" % (given,)) from None
