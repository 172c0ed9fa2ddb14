"""The command line that is installed with btrdbextras: what notebooks can do, for a shell. Needs click and rich."""

import contextlib
import os
import sys
from typing import Any, Iterator, List, Optional

import click

import btrdbextras
from btrdbextras.commands import archives, desk, handlers, runs
from btrdbextras.commands.show import CLOSED, EXIT_CODES, Ended, Shared, fail

__all__ = ["cli", "run"]

NAME = "eventproc"
_EPILOG = "\b\nExit codes:\n" + "\n".join("  %3d  %s" % pair for pair in EXIT_CODES)


@contextlib.contextmanager
def _pipes() -> Iterator[None]:
    """Makes Ended of a pipe that was closed: click and rich make it an exit with 1, which here says that the function failed."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        raise Ended(CLOSED) from error


class _Commands(click.Group):
    def make_context(self, *args: Any, **named: Any) -> click.Context:
        with _pipes():
            return super().make_context(*args, **named)

    def invoke(self, ctx: click.Context) -> Any:
        with _pipes():
            return super().invoke(ctx)


@click.group(
    name=NAME,
    cls=_Commands,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--endpoint", metavar="HOST:PORT", help="Where the platform is. Default: $BTRDB_ENDPOINTS.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts (also after the command).")
@click.version_option(btrdbextras.__version__, "-V", "--version", prog_name=NAME)
@click.pass_context
def cli(context: click.Context, endpoint: Optional[str], as_json: bool) -> None:
    """Functions that run on the PredictiveGrid platform at each new recording: register them, see their runs.

    Who asks is told by $BTRDB_API_KEY, your API key; $BTRDB_CA_BUNDLE names the file of a private CA.
    A HANDLER is a handler's id or name; a RUN is a run's id, or a handler's for its newest run.
    """
    context.obj = Shared(endpoint, as_json)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes eventproc's words in SHELL.

    For bash: eval "$(eventproc completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    sys.stdout.write(kind(cli, {}, NAME, "_EVENTPROC_COMPLETE").source() + "\n")


for command in handlers.COMMANDS + desk.COMMANDS + runs.COMMANDS + archives.COMMANDS:
    cli.add_command(command)


def run(arguments: Optional[List[str]] = None) -> int:
    """Runs a command line (default: the process's); returns the exit code. Errors are told on stderr, never as a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        answer = cli.main(given, prog_name=NAME, standalone_mode=False)
        with _pipes():
            sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except Ended as ended:
        if ended.code == CLOSED:
            _drop_output()
        return ended.code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - all is told in one line, whatever it is
        return fail(error, "--json" in given)


def _drop_output() -> None:
    """Whoever read it has had enough: Python flushes what is left when it ends, and would complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
