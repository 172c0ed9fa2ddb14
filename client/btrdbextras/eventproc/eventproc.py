"""What a notebook calls: hooks, list_handlers, register, deregister, upload_file."""

import os
import re
import sys
import uuid
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

import dill

from btrdbextras.conn import Connection
from btrdbextras.eventproc import options, pickling, rows, wire
from btrdbextras.eventproc.call import call, connect
from btrdbextras.eventproc.rows import Handler

__all__ = ["Handler", "_uploads", "connect", "deregister", "hooks", "list_handlers", "register", "upload_file"]

_uploads: Dict[str, List[str]] = {}
"""Files to be uploaded when the handler has ended: 32 hex digits -> [path, name]."""

FILE_NAME_LENGTH = 200

Function = TypeVar("Function", bound=Callable[..., Any])


def hooks(conn: Connection) -> List[str]:
    """The names of the hooks that functions can be registered for.

    Parameters
    ----------
    conn: Connection

    Returns
    -------
    list of str

    Example
    -------
    >>> hooks(conn)
    ['ctingress.on_complete']
    """
    return [hook.name for hook in call(conn, "ListHooks", wire.message("ListHooksRequest")()).hooks]


def list_handlers(conn: Connection, hook: str = "", hooks: Optional[str] = None) -> List[Handler]:
    """The registered handlers: everybody's, of one hook or of all.

    Parameters
    ----------
    conn: Connection
    hook: str
        Only handlers of this hook; '' for all. (hooks= is taken as another name of it.)

    Returns
    -------
    list of Handler
    """
    wanted = hook if hooks is None else hooks
    _text("hook", wanted)
    answer = call(conn, "ListHandlers", wire.message("ListHandlersRequest")(hook=wanted))
    return rows.handlers(answer.handlers)


def register(
    conn: Connection,
    name: str,
    hook: str,
    notify_on_success: str,
    notify_on_failure: str,
    tags: Optional[Sequence[str]] = None,
    requirements: Optional[Sequence[str]] = None,
    timeout: Any = None,
    memory: Any = None,
    max_concurrency: Optional[int] = None,
    retries: Optional[int] = None,
    retry_delay: Any = None,
    notify: Optional[str] = None,
    description: Optional[str] = None,
) -> Callable[[Function], Function]:
    """Decorator that registers a function: from now on it runs on the platform at each event of the hook that its tags match.

    Registering again under the same name and hook replaces it: the version goes up by one. The function runs in a sandbox,
    with your API key, on the Python version that it was registered from. It is called by keyword with what its signature
    names; for hook ctingress.on_complete: btrdb (connected as you), DataSets, File, RequestID, SubmittedAt, and, only
    when named, Tags and Recordings. Put imports inside the function. What it returns is in the email, as is what it raises.

    Parameters
    ----------
    conn: Connection
    name: str
        What the handler is called; 1 to 100 characters.
    hook: str
        One of hooks(conn).
    notify_on_success, notify_on_failure: str
        Email addresses that are told how a run ended; '' for no email.
    tags: list of str, optional
        The function runs at events with at least one of these tags; without tags it runs at every event.
    requirements: list of str, optional
        Packages that the function needs beyond those of its runtime, as in ['pyarrow>=14'] (PEP 508, without addresses).
    timeout: float, timedelta or str, optional
        How long one attempt may take: seconds, or text like '15m'. Default, and the most: the platform's.
    memory: int or str, optional
        How much memory one attempt may use: bytes, or text like '2 GiB'. Default, and the most: the platform's.
    max_concurrency: int, optional
        How many runs of it may go on at a time. Default: the platform's.
    retries: int, optional
        How often a run that failed, timed out, ran out of memory or crashed is tried again. Default: not at all. The one email, when
        it is over, tells of all attempts.
    retry_delay: float, timedelta or str, optional
        How long to wait before each retry: seconds, or text like '5m'.
    notify: str, optional
        'each' (an email a run, the default), 'digest' (runs told of together), 'failures' (those alone) or 'none'.
    description: str, optional
        For people; at most 2000 characters.

    Returns
    -------
    a decorator, which returns the function unchanged, and prints what was registered and what the check in the sandbox said

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be right, and for a function that cannot be pickled, naming what in it cannot.
    EventProcError
        NoServer, UntrustedCertificate, WrongKey, NotYours, InvalidRegistration (see btrdbextras.errors): what the platform said.

    Example
    -------
    >>> @register(conn, 'count', 'ctingress.on_complete', 'alice@example.com', 'alice@example.com', tags=['north'])
    ... def count(DataSets, **kwargs):
    ...     return '%d data sets' % len(DataSets)
    """
    registration = wanted(
        name, hook, notify_on_success, notify_on_failure, tags, requirements, timeout, memory, max_concurrency, retries,
        retry_delay, notify, description,
    )  # fmt: skip

    def decorator(function: Function) -> Function:
        for line in submit(conn, pickling.pickle(function), registration)[1]:
            print(line)
        return function

    return decorator


def wanted(
    name: str,
    hook: str,
    notify_on_success: str,
    notify_on_failure: str,
    tags: Optional[Sequence[str]],
    requirements: Optional[Sequence[str]],
    *asked: Any,
    **named: Any,
) -> Any:
    """The message Registration of what register() takes, without the function. asked, named: see options.message().

    Raises TypeError, ValueError.
    """
    for field, value in (("name", name), ("hook", hook)):
        _text(field, value)
        if not value.strip():
            raise ValueError("%s is empty" % field)
    for field, value in (("notify_on_success", notify_on_success), ("notify_on_failure", notify_on_failure)):
        _address(field, value)
    return wire.message("Registration")(
        name=name, hook=hook, tags=_tags(tags), notify_on_success=notify_on_success or "",
        notify_on_failure=notify_on_failure or "", requirements=options.requirements(requirements),
        options=options.message(*asked, **named),
    )  # fmt: skip


def submit(conn: Connection, pickled: pickling.Pickled, wanted: Any) -> Tuple[Handler, List[str]]:
    """Registers a function as the message Registration says. Returns the handler, and lines for people."""
    package = wire.message("Package")
    registration = wire.message("Registration")()
    registration.CopyFrom(wanted)  # a decorator may be used again
    registration.MergeFrom(
        wire.message("Registration")(
            blob=pickled.blob,
            api_key=conn.apikey,
            python_version="%d.%d.%d" % sys.version_info[:3],
            dill_version=dill.__version__,
            packages=[package(name=one, version=version) for one, version in sorted(pickled.packages.items())],
            source=pickled.source,
            first_line=pickled.first_line,
            file_name=pickled.file_name,
        )
    )
    answer = call(conn, "Register", wire.message("RegisterRequest")(registration=registration))
    lines = [_registered(answer)] + ["note: " + note for note in answer.notes if note != answer.check]
    sent = registration.options
    ignored = [re.sub("(_s|_bytes)$", "", field.name) for field, _ in sent.ListFields()]
    ignored += ["requirements"] if registration.requirements else []
    if ignored and not answer.handler.HasField("options"):
        lines.append("note: this platform is older than btrdbextras and does not know of: %s" % ", ".join(ignored))
    return rows.handler(answer.handler), lines


def deregister(conn: Connection, handler_id: int) -> bool:
    """Removes a handler: yours, or, for an admin, anybody's. Runs that have begun go on.

    Parameters
    ----------
    conn: Connection
    handler_id: int
        As list_handlers(conn) shows it.

    Returns
    -------
    True

    Raises
    ------
    EventProcError
        UnknownHandler for an unknown id, NotYours when it is somebody else's.
    """
    if isinstance(handler_id, bool) or not isinstance(handler_id, int):
        raise TypeError("handler_id should be an int, as list_handlers(conn) shows it; it is %r" % (handler_id,))
    if not 0 <= handler_id < 2**31:
        raise ValueError("handler_id %d is no id; list_handlers(conn) shows them" % handler_id)
    answer = call(conn, "Deregister", wire.message("DeregisterRequest")(id=handler_id))
    return bool(answer.id == handler_id)


def upload_file(file: str, file_name: str) -> Optional[str]:
    """In a handler: hands a file over for download, and returns its link, for the text that the handler returns.

    The file is taken when the handler has ended; downloading needs an API key. Outside a handler the arguments are checked, a
    warning says that nothing is uploaded, and None is returned.

    Parameters
    ----------
    file: str
        Path of the file.
    file_name: str
        The name it gets when downloaded; at most 200 characters. '' for the file's own.

    Returns
    -------
    str or None

    Raises
    ------
    TypeError
        An argument is no str.
    ValueError
        There is no such file, or the name is too long.
    """
    if not isinstance(file, str):
        raise TypeError("file should be a str, the path of a file; it is a %s" % type(file).__name__)
    if not isinstance(file_name, str):
        raise TypeError("file_name should be a str; it is a %s" % type(file_name).__name__)
    if not os.path.isfile(file):
        raise ValueError("file %r does not exist, or is no file" % file)
    file_name = file_name if file_name.strip() else os.path.basename(file)
    if len(file_name) > FILE_NAME_LENGTH:
        raise ValueError("file_name has %d characters; it should have at most %d" % (len(file_name), FILE_NAME_LENGTH))
    if os.environ.get("EXECUTOR_CONTEXT") != "true":
        warnings.warn("upload_file uploads in a handler only: nothing is uploaded here", stacklevel=2)
        return None
    code = uuid.uuid4().hex
    # it is opened when the handler has ended: from whatever folder, and not through a link
    _uploads[code] = [os.path.realpath(file), file_name]
    return "https://%s/%s" % (os.environ.get("DOWNLOADS_ENDPOINT", ""), code)


def _registered(answer: Any) -> str:
    """What was registered, in one line."""
    made = answer.handler
    tags = "tags %s" % ", ".join(sorted(made.tag)) if made.tag else "every event"
    line = "registered %r version %d (id %d) for %s" % (made.name, made.version, made.id, tags)
    return "; ".join(part for part in (line, made.runtime and "runs on %s" % made.runtime, answer.check) if part)


def _text(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError("%s should be a str; it is a %s" % (field, type(value).__name__))


def _address(field: str, value: Any) -> None:
    if value is None or value == "":
        return
    _text(field, value)
    if not re.match(r"\s*[^@\s]+@[^@\s]+\s*$", value):
        raise ValueError(
            "%s %r should be one email address, as in alice@example.com, or '' for no email" % (field, value)
        )


def _tags(tags: Optional[Sequence[str]]) -> List[str]:
    if tags is None:
        return []
    if isinstance(tags, (str, bytes)):
        raise TypeError("tags should be a list of str, as in tags=[%r]" % (tags,))
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str):
            raise TypeError("tags should be a list of str; one of them is a %s" % type(tag).__name__)
        if not tag.strip():
            raise ValueError("a tag is empty; leave it out, or give no tags to run at every event")
    return found
