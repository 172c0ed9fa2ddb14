"""The command line, eventproc; see btrdbextras.commands."""

import os
import sys


def main() -> None:
    """Runs eventproc with the arguments of the process, and ends it with one of the exit codes of `eventproc --help`."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines on stderr say what our errors say better
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.stderr.write("eventproc needs click and rich (%s): pip install 'click>=8.0' 'rich>=12'\n" % error)
        sys.exit(2)
    from btrdbextras.commands import run

    sys.exit(run())


if __name__ == "__main__":
    main()
