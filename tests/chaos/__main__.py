"""python -m tests.chaos --duration 60 --seed 7: what `make chaos` runs. Prints what it did; its last line counts."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from btrdbextras import Connection
from btrdbextras.eventproc import register
from devstack import kafka
from faults import POINTS
from ledger import Ledger
from ledger.handlers import HandlerView, list_handlers
from schemas.errors import TryLater
from stream.connect import open_broker
from stream.settings import StreamSettings
from tests.chaos.handlers import ALL, Registered
from tests.chaos.havoc import Havoc
from tests.chaos.load import HOOK, Load
from tests.chaos.reckon import Books, expected_runs, kill_points, reckon, unsettled
from tests.chaos.stage import COUNTS, Stage

CHANCE = 0.001
AHEAD = 400
PAUSE_S = 1.7
LATER = 8
SHOWN = 20
START_S = 180.0


def main() -> int:
    """0 when nothing was lost or doubled, else 1; the state folder is kept then, and named."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of load and havoc (default 60)")
    parser.add_argument(
        "--seed", type=int, default=None, help="draws who is hit, when and how (default: another each time)"
    )
    parser.add_argument(
        "--settle", type=float, default=180.0, help="seconds that it may take to come to rest (default 180)"
    )
    parser.add_argument("--ahead", type=int, default=AHEAD, help=f"runs under way at a time (default {AHEAD})")
    parser.add_argument(
        "--chance", type=float, default=CHANCE, help=f"of dying at one kill point's passage (default {CHANCE})"
    )
    parser.add_argument(
        "--runs", type=int, default=0, help="go on longer, with fewer blows, until there are so many (default 0)"
    )
    parser.add_argument(
        "--pause", type=float, default=PAUSE_S, help=f"seconds between two blows, on average (default {PAUSE_S})"
    )
    parser.add_argument(
        "--executors", type=int, default=COUNTS["executor"], help=f"how many (default {COUNTS['executor']})"
    )
    parser.add_argument(
        "--calm", action="store_true", help="do nothing to anybody: what the machine does without chaos"
    )
    parser.add_argument("--keep", action="store_true", help="keep the state folder even when all is well")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else int.from_bytes(os.urandom(2), "big")
    print(f"chaos: seed {seed}, {given.duration:g} s of load and havoc", flush=True)
    kafka.fetch(_say)
    folder = Path(tempfile.mkdtemp(prefix="eventproc-chaos-"))
    stage = Stage(folder, seed, given.chance, counts={**COUNTS, "executor": given.executors})
    try:
        books = _run(stage, given, seed)
    finally:
        stage.stop()
    if books.lost or books.doubled or given.keep:
        print(f"the logs are in {folder / 'logs'}")
    else:
        shutil.rmtree(folder)
    print(books.last_line())
    return 1 if books.lost or books.doubled else 0


def _run(stage: Stage, given: argparse.Namespace, seed: int) -> Books:
    began = time.monotonic()
    stage.start(lambda text: None)
    while not stage.all_ready():
        if time.monotonic() - began > START_S:
            raise RuntimeError(f"not every station became ready; the logs are in {stage.layout.state / 'logs'}")
        time.sleep(0.1)
    _say(f"{len(stage.names())} processes are up after {time.monotonic() - began:.0f} s: {', '.join(stage.names())}")
    ledger = Ledger.open(stage.ledger_url)
    broker = open_broker(StreamSettings(bootstrap_servers=stage.bootstrap, request_timeout_ms=4000))
    admin = broker.admin()
    try:
        layout = stage.layout
        handlers = register_all(layout.at("btrdb"), layout.certificates.ca, layout.api_keys, ledger)
        load = Load(broker.producer(), ledger, seed, given.ahead)
        havoc = Havoc(stage, seed, stage.names(), given.pause)
        load.start()
        if not given.calm:
            stage.faulty.touch()
            havoc.start()
        time.sleep(given.duration)
        havoc.pause_s *= LATER  # a machine on which there are still too few: processes must get up between two blows
        while load.made < given.runs:
            time.sleep(0.1)
        load.stop()
        if not given.calm:
            havoc.stop()
            stage.faulty.unlink()
        expected = expected_runs(load.events, handlers)
        rest = settle(ledger, admin, len(expected), given.settle)
        died = kill_points(stage.fault_log)
        books = patiently(
            lambda: reckon(
                ledger, admin, load.events, expected, stage.layout.state, [*havoc.deeds, *(deed for deed, _ in died)]
            )
        )
        if rest:
            books.lost.append(f"it did not come to rest within {given.settle:g} s: {rest}")
        _tell(books, havoc, load, Counter(point for _, point in died))
        return books
    finally:
        broker.close()
        ledger.close()


def register_all(
    endpoint: str, ca: Path, api_keys: Mapping[str, str], ledger: Ledger, handlers: Sequence[Registered] = ALL
) -> dict[str, tuple[Registered, HandlerView]]:
    """Registers every handler as its user would, at BTrDB's address; by name. Raises TryLater."""
    os.environ["BTRDB_CA_BUNDLE"] = str(ca)
    for one in handlers:
        connection = Connection(endpoint, api_keys[one.user])
        with contextlib.redirect_stdout(io.StringIO()):
            register(connection, one.name, HOOK, one.on_success, one.on_failure, tags=list(one.tags))(one.function)
    with ledger.read() as session:
        views = {view.name: view for view in list_handlers(session)}
    return {one.name: (one, views[one.name]) for one in handlers}


def settle(ledger: Ledger, admin: Any, expected: int, patience_s: float) -> str:
    """Waits until nothing is under way any more; what still is when the time is over."""
    began = time.monotonic()
    while True:
        try:
            rest = unsettled(ledger, admin, expected)
        except TryLater as error:
            rest = error.reason
        if not rest:
            _say(f"at rest {time.monotonic() - began:.0f} s after the last blow")
            return ""
        if time.monotonic() - began > patience_s:
            return rest
        time.sleep(0.25)


def patiently(work: Callable[[], Books]) -> Books:
    """Its answer; TryLater counts after a minute only."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return work()
        except TryLater:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _tell(books: Books, havoc: Havoc, load: Load, died: Counter[str]) -> None:
    done = Counter((deed.name, deed.how) for deed in havoc.deeds)
    for how, verb in (("kill", "killed with -9"), ("stop", "stopped and continued"), ("term", "ended by SIGTERM")):
        parts = [f"{name} {count}" for (name, one), count in sorted(done.items()) if one == how]
        _say(f"{verb}: {', '.join(parts) or 'none'}")
    _say(f"died at kill points: {', '.join(f'{point} {died[point]}' for point in POINTS if died[point]) or 'none'}")
    _say(f"events published twice: {load.again}; runs by outcome: {dict(sorted(books.outcomes.items()))}")
    _say(
        f"handlers began {books.starts} times, {books.started_again} of them again after their executor was killed, stopped or "
        f"told to end; {books.copies} emails arrived in a second copy with the same Message-ID"
    )
    complain(books)


def complain(books: Books) -> None:
    """Names what is lost or doubled."""
    for kind, found in (("LOST", books.lost), ("DOUBLED", books.doubled)):
        for text in found[:SHOWN]:
            print(f"{kind}: {text}")
        if len(found) > SHOWN:
            print(f"{kind}: and {len(found) - SHOWN} more")


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
