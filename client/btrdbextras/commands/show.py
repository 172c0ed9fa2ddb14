"""How commands answer: tables for people, JSON for scripts; errors in one line with an exit code."""

import datetime
import json
import re
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import click

from btrdbextras import Connection, errors
from btrdbextras.eventproc import list_handlers, look
from btrdbextras.eventproc.rows import Handler
from btrdbextras.eventproc.table import Table

FAILED, USAGE, AWAY, FORBIDDEN, UNKNOWN, SERVICE, INTERRUPTED, CLOSED = 1, 2, 3, 4, 5, 6, 130, 141
EXIT_CODES = (
    (0, "done"),
    (FAILED, "the function failed at the desk, or the archive could not be ingested"),
    (USAGE, "an argument, an option or a file is wrong, or the platform refuses a value"),
    (AWAY, "nobody answers, or the server's certificate is not trusted"),
    (FORBIDDEN, "the API key is wrong or missing, or it is somebody else's"),
    (UNKNOWN, "there is no such handler, run or file"),
    (SERVICE, "the platform failed, or is too old for that"),
    (INTERRUPTED, "interrupted by Ctrl-C"),
    (CLOSED, "whoever read the answer closed the pipe before its end"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Ended(Exception):
    """The command is over with this exit code, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class NoKey(Exception):
    """There is no API key to ask with."""


class Shared:
    """What all commands know. as_json: answer in JSON."""

    def __init__(self, endpoint: Optional[str], as_json: bool) -> None:
        self.endpoint = endpoint
        self.as_json = as_json

    def conn(self) -> Connection:
        """The connection that the options and the environment tell of. Raises click.UsageError, NoKey."""
        try:
            return Connection(self.endpoint)
        except ValueError as error:
            if "no API key" in str(error):
                raise NoKey("no API key: set the environment variable BTRDB_API_KEY") from error
            raise click.UsageError(str(error).replace("pass 'host:port'", "give --endpoint HOST:PORT")) from error

    def table(self, rows: Table, none: str) -> None:
        """Shows rows; none: what to say when there are none."""
        if self.as_json:
            self.json([as_json(row) for row in rows])
        elif rows:
            _print_table(rows)
        else:
            click.echo(none, err=True)

    def record(self, value: Any, text: str) -> None:
        """Shows one thing: text for people, itself for scripts."""
        if self.as_json:
            self.json(as_json(value))
        else:
            click.echo(clean(text))

    def note(self, text: str) -> None:
        """For people alone, on stderr."""
        if not self.as_json:
            click.echo(clean(text), err=True)

    @staticmethod
    def json(value: Any) -> None:
        """One JSON document."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def command(name: Optional[str] = None, **attributes: Any) -> Callable[[Any], click.Command]:
    """A command that takes --json and gets the Shared as its first argument."""

    def wrap(function: Any) -> click.Command:
        def take(context: click.Context, _option: Any, value: bool) -> None:
            if value:
                context.find_root().obj.as_json = True

        option = click.option("--json", is_flag=True, expose_value=False, callback=take, help="Answer in JSON.")
        passed: Any = click.pass_obj
        made: Any = click.command(name, **attributes)
        return made(option(passed(function)))  # type: ignore[no-any-return]

    return wrap


def handler_of(text: str) -> Union[int, str]:
    """An id where it is a number, else a name."""
    return int(text) if re.match(r"[0-9]{1,9}$", text) else text


def id_of(conn: Connection, text: str) -> int:
    """The id of the handler of that id or name. Raises UnknownHandler, click.UsageError."""
    wanted = handler_of(text)
    if isinstance(wanted, int):
        return wanted
    found = [one for one in list_handlers(conn) if one.name == wanted]
    if not found:
        raise errors.UnknownHandler("there is no handler named %r; `eventproc handlers` lists them" % wanted)
    if len(found) > 1:
        ids = ", ".join("%d (%s)" % (one.id, one.hook) for one in found)
        raise click.UsageError("several handlers are named %r; give the id: %s" % (wanted, ids))
    return found[0].id


def run_of(conn: Connection, text: str) -> str:
    """The id of a run, of text that is one, or a handler's id or name: its newest run's. Raises UnknownRun."""
    if re.match(r"[0-9a-fA-F]{8}-", text):
        return look.run_id(text)
    newest = look.runs(conn, handler_of(text), limit=1)
    if not newest:
        raise errors.UnknownRun("handler %s has no run yet" % text)
    return newest[0].id


def as_json(value: Any) -> Any:
    """Of namedtuples, datetimes, lists and what JSON has."""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields: Dict[str, Any] = {name: as_json(getattr(value, name)) for name in value._fields}
        if isinstance(value, Handler):
            for name in ("runtime", "paused", "pause_reason"):
                fields[name] = getattr(value, name)
            fields.update(options=dict(value.options), requirements=list(value.requirements))
        return fields
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return value


def clean(text: str) -> str:
    """Without what could steer a terminal, but for line ends and tabs."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n")) if sys.stdout.isatty() else text


def _print_table(rows: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    titles = [title for title, _ in rows.columns]
    cells = rows.cells(rows)
    kept = [at for at in range(len(titles)) if any(row[at] for row in cells)]
    # a pipe gets every letter in one line; a terminal's lines are folded
    wide = sum(max(len(row[at]) for row in cells) + len(titles[at]) + 3 for at in kept)
    console = Console(width=None if sys.stdout.isatty() else max(wide, 80), highlight=False)
    drawn = Drawn(box=None, pad_edge=False, header_style="bold")
    for at in kept:
        drawn.add_column(titles[at], overflow="fold")
    for row in cells:
        drawn.add_row(*[Text(clean(row[at])) for at in kept])
    console.print(drawn)


def fail(error: BaseException, as_json: bool) -> int:
    """Tells of an error on stderr; returns its exit code."""
    code, text = _told(error)
    if code == INTERRUPTED:
        click.echo("interrupted", err=True)
    elif as_json:
        click.echo(json.dumps({"error": {"kind": type(error).__name__, "message": text, "code": code}}), err=True)
    else:
        click.echo("eventproc: " + clean(text), err=True)
    return code


def _told(error: BaseException) -> Tuple[int, str]:
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED, ""
    if isinstance(error, click.ClickException):
        where = getattr(error, "ctx", None)
        hint = "\nTry '%s --help'." % where.command_path if where is not None else ""
        return USAGE, error.format_message() + hint
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code, str(error)
    return SERVICE, "%s: %s (a mistake of eventproc itself; please tell its makers)" % (type(error).__name__, error)


_CODES: List[Tuple[Any, int]] = [
    ((errors.NoServer, errors.UntrustedCertificate), AWAY),
    ((errors.WrongKey, errors.NotYours, NoKey), FORBIDDEN),
    ((errors.NotFound,), UNKNOWN),
    ((errors.InvalidRequest, errors.CannotPickle), USAGE),
    ((errors.EventProcError,), SERVICE),
    ((ValueError, TypeError, OSError), USAGE),
]
