"""Commands that take a function from a file: try it, register it."""

import contextlib
import inspect
import os
import sys
import types
from typing import Any, Dict, Iterator, List, Optional

import click

from btrdbextras import eventproc
from btrdbextras.commands.show import FAILED, Ended, Shared, as_json, command
from btrdbextras.eventproc import pickling
from btrdbextras.eventproc.eventproc import submit, wanted

HOOK = "ctingress.on_complete"


@contextlib.contextmanager
def loaded(spec: str) -> Iterator[Any]:
    """The function that 'file.py:function' names; the file is run as `python file.py` would run it, its output goes to stderr.

    Meanwhile it is this process's __main__. Raises click.UsageError.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not file or not name:
        raise click.UsageError("%r should be file.py:function, as in peaks.py:peaks" % spec)
    path = os.path.abspath(file)
    try:
        with open(path, "rb") as opened:
            text = opened.read()
    except OSError as error:
        raise click.UsageError("%s cannot be read: %s" % (file, error.strerror)) from error
    module: Any = types.ModuleType("__main__")
    module.__file__ = path
    before = sys.modules["__main__"], sys.argv, sys.path
    sys.modules["__main__"], sys.argv, sys.path = module, [path], [os.path.dirname(path), *sys.path]
    try:
        _execute(module, text, path, file)
        yield _function(module, name, file)
    finally:
        sys.modules["__main__"], sys.argv, sys.path = before


def _execute(module: Any, text: bytes, path: str, file: str) -> None:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        pass  # of `if __name__ == "__main__":`, at the file's end
    except Exception as error:
        raise click.UsageError("%s cannot be run: %s" % (file, _where(error, path))) from error


def _function(module: Any, name: str, file: str) -> Any:
    found = module.__dict__.get(name)
    if found is None:
        there = [
            one
            for one, value in module.__dict__.items()
            if inspect.isfunction(value) and value.__module__ == "__main__"
        ]
        raise click.UsageError("%s has no %r; its functions are: %s" % (file, name, ", ".join(there) or "none"))
    return found


def _where(error: BaseException, path: str) -> str:
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    said = "%s: %s" % (type(error).__name__, error)
    return said if line is None or isinstance(error, SyntaxError) else "line %d: %s" % (line, said)


@command("try")
@click.argument("function", metavar="FILE.py:FUNCTION")
@click.option(
    "--event",
    type=click.Path(exists=True, dir_okay=False),
    help="A .json file of an event, or an archive (.zip). Default: a sample.",
)
@click.option(
    "--platform", is_flag=True, help="Read from the platform's BTrDB (default for an event from a .json file)."
)
@click.option("--hook", default=HOOK, show_default=True, help="The hook whose sample is taken.")
@click.option("--timeout", type=float, default=900.0, show_default=True, metavar="SECONDS", help="Ended after so long.")
def try_(shared: Shared, function: str, event: Optional[str], platform: bool, hook: str, timeout: float) -> None:
    """Run a function here as the platform would, and tell what will differ there; nothing is registered."""
    conn = shared.conn() if platform or (event and event.lower().endswith(".json")) else None
    with loaded(function) as found:
        tried = eventproc.try_handler(found, event, conn, hook, timeout)
    shared.record(_of_trial(tried), repr(tried))
    if not tried.ok:
        raise Ended(FAILED)


def _of_trial(tried: eventproc.Trial) -> Dict[str, Any]:
    uploads = [{"name": one.name, "size": one.size} for one in tried.uploads]
    kept = ("name", "ok", "text", "error", "traceback", "log", "warnings", "seconds")
    return dict({name: getattr(tried, name) for name in kept}, uploads=uploads)


@command()
@click.argument("function", metavar="FILE.py:FUNCTION")
@click.option("--name", help="What the handler is called. Default: the function's name.")
@click.option("--hook", default=HOOK, show_default=True)
@click.option("--tags", multiple=True, metavar="A,B", help="Run at events with one of these. Default: at every event.")
@click.option("--email", help="Who is told how a run ended; --on-success and --on-failure say it apart.")
@click.option("--on-success", metavar="EMAIL")
@click.option("--on-failure", metavar="EMAIL")
@click.option(
    "--requirement", "requirements", multiple=True, metavar="PACKAGE", help="Needed beyond the runtime's packages."
)
@click.option("--timeout", metavar="TIME", help="Of one attempt: 90s, 15m.")
@click.option("--memory", metavar="SIZE", help="Of one attempt: '2 GiB'.")
@click.option("--max-concurrency", type=int, metavar="RUNS", help="Runs of it at a time.")
@click.option("--retries", type=int, help="How often a run that failed is tried again.")
@click.option("--retry-delay", metavar="TIME", help="Before each retry: 30s, 5m.")
@click.option("--notify", type=click.Choice(["each", "digest", "failures", "none"]), help="When emails are sent.")
@click.option("--description", help="For people.")
def register(shared: Shared, function: str, name: Optional[str], email: Optional[str], **given: Any) -> None:
    """Register a function: it runs on the platform at each event that its tags match.

    The file is run as `python FILE.py` would run it, and the function travels with what it uses. Under a name that
    is registered already, it becomes the next version.
    """
    conn = shared.conn()
    tags: List[str] = [tag.strip() for one in given.pop("tags") for tag in one.split(",") if tag.strip()]
    success, failure = (given.pop("on_" + how) for how in ("success", "failure"))
    hook = given.pop("hook")
    with loaded(function) as found:
        registration = wanted(
            name=getattr(found, "__name__", function.rpartition(":")[2]) if name is None else name,
            hook=hook,
            notify_on_success=email or "" if success is None else success,
            notify_on_failure=email or "" if failure is None else failure,
            tags=tags,
            **dict(given, requirements=list(given["requirements"])),
        )
        made, said = submit(conn, pickling.pickle(found), registration)
    if not (made.notify_on_success or made.notify_on_failure):
        said.append("note: nobody gets an email; --email names who should")
    shared.record(dict(as_json(made), notes=said[1:], said=said[0]), "\n".join(said))


COMMANDS = [try_, register]
