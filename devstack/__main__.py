"""python -m devstack demo|up|down|fetch|lock|runtimes: what the Makefile calls."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """0 when it went well; 1 with one clear reason on stderr when not; 130 after Ctrl-C, and 128 + number after a signal."""
    given = _parse(arguments)
    caught = signal.SIGINT

    def stopped(number: int, _frame: FrameType | None) -> None:
        nonlocal caught
        caught = signal.Signals(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal and a CI job called off end it as Ctrl-C does
        signal.signal(number, stopped)
    try:
        return _do_or_say_why(given)
    except KeyboardInterrupt:
        how = "Ctrl-C" if caught is signal.SIGINT else caught.name
        print(f"✗ stopped by {how}; everything it had started is gone", file=sys.stderr)
        return 128 + caught


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devstack", description=__doc__)
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".devstack", help="folder of the stack (default: .devstack)"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("demo", help="the whole story, from archive to email")
    show.add_argument("--file", type=Path, help="a COMTRADE archive (.zip) of your own")
    show.add_argument("--tags", default="", help="tags for it, comma-separated")
    verbs.add_parser("up", help="start the stack and leave it running")
    verbs.add_parser("down", help="stop it")
    verbs.add_parser("supervise", help="run the stack in the foreground (up does this in the background)")
    verbs.add_parser("fetch", help="bring what Kafka needs to this machine")
    verbs.add_parser("lock", help="pin requirements/*.in anew")
    build = verbs.add_parser(
        "runtimes", help="build the runtimes of executor/runtimes/ whose Python is on this machine"
    )
    build.add_argument("--full", action="store_true", help="with the full list where there is one (some GB each)")
    build.add_argument("--lock", action="store_true", help="resolve their packages anew instead")
    build.add_argument("names", nargs="*", help="only these, as in py3.7")
    return parser.parse_args(arguments)


def _do_or_say_why(given: argparse.Namespace) -> int:
    # imported here, not above: they take a second, and Ctrl-C is to be answered in that second too
    from devstack import kafka, runtimes, tell
    from devstack.demo import StoryFailed
    from devstack.run import NotUp
    from devstack.supervisor import StartFailed

    try:
        return _do(given)
    except (
        StoryFailed,
        StartFailed,
        NotUp,
        kafka.NoKafka,
        runtimes.BuildFailed,
        OSError,
        subprocess.CalledProcessError,
    ) as error:
        tell.problem(str(error))
        return 1


def _do(given: argparse.Namespace) -> int:
    from devstack import kafka, tell
    from devstack.demo import demo
    from devstack.run import bring_down, bring_up, supervise

    if given.verb == "demo":
        return demo(given.state, given.file, tuple(t.strip() for t in given.tags.split(",") if t.strip()))
    if given.verb == "up":
        return bring_up(given.state)
    if given.verb == "down":
        return bring_down(given.state)
    if given.verb == "supervise":
        return supervise(given.state)
    if given.verb == "fetch":
        kafka.fetch(tell.progress)
        return 0
    if given.verb == "runtimes":
        return _runtimes(given)
    return _lock()


def _runtimes(given: argparse.Namespace) -> int:
    from devstack import runtimes, tell

    if given.lock:
        runtimes.lock(tell.progress, given.names)
        return 0
    built = runtimes.build(tell.progress, given.names, given.full)
    tell.progress(f"{len(built)} runtimes in {runtimes.BUILT.relative_to(ROOT)}: {', '.join(built)}")
    return 0


def _lock() -> int:
    """uv resolves for every platform at once and writes no index address; it is not needed otherwise, so it is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "-q", "uv"], check=True)
        uv = shutil.which("uv", path=f"{folder}/bin") or "uv"
        ours = ["-c", "requirements/all.txt"]  # one version of a package in tests and in images
        for wanted, pinned, held in (
            ("requirements/all.in", "requirements/all.txt", []),
            ("requirements/stations.in", "requirements/stations.txt", ours),
            ("requirements/executor.in", "requirements/executor.txt", ours),
            ("requirements/build.in", "requirements/build.txt", ours),
            ("bench/peers/requirements.in", "bench/peers/requirements.txt", []),
        ):
            subprocess.run(
                [uv, "pip", "compile", "-q", "--universal", "--python-version", "3.11", "--generate-hashes",
                 "--no-emit-index-url", "--no-header", "--no-annotate", *held, wanted, "-o", pinned],
                check=True,
                cwd=ROOT,
                env={**os.environ, "UV_NATIVE_TLS": "true"},
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
