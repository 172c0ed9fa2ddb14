"""make bench-fairness: how long a run waits for a slot on an idle system, and while another owner has 10,000 slow runs queued.

The whole road through real processes on a stack of its own, with two executors and the settings as they come. bob's events come
at a steady pace; a wait is the ledger's: from the run's queueing to its claim.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from bench.figures import percentile, write
from bench.ground import HOOK, an_event, table
from btrdbextras import Connection
from btrdbextras.eventproc import register
from devstack import kafka, tell
from devstack.stack import ROOT, Stack, answers_ok
from devstack.supervisor import Process
from ledger import Ledger
from ledger.handlers import list_handlers, remove
from ledger.tables import AttemptRow, RunRow
from schemas.encoding import cloud_event_headers, encode
from stream.broker import Producer
from stream.connect import open_broker
from stream.settings import StreamSettings

EXECUTORS, SLOTS = 2, 4
FLOOD_EVENTS, FLOOD_HANDLERS, SLOW_S = 1000, 10, 2.0
ROUNDS, EVENTS, WARM_UP = 3, 200, 10  # with 100 events the p99 is the second worst of them: it doubles from run to run
PACE_S = (
    0.2  # between bob's events: at once after the one before they would keep both processors of a small machine busy
)
PATIENCE_S = 120.0
SECOND_PORT = 9115


class WideStack(Stack):
    """The development stack with two executors of four slots."""

    def _processes(self) -> list[Process]:
        processes = super()._processes()
        at = next(number for number, process in enumerate(processes) if process.name == "executor")
        env = {"EXECUTOR_SLOTS": str(SLOTS), "EXECUTOR_MEMORY_BYTES": str(256 << 20)}
        first = dataclasses.replace(processes[at], env={**processes[at].env, **env})
        url = f"http://{self.layout.address}:{SECOND_PORT}/readyz"
        second = dataclasses.replace(
            first,
            name="executor-2",
            env={
                **first.env,
                "EVENTPROC_METRICS_PORT": str(SECOND_PORT),
                "EXECUTOR_NAME": "second",
                "EXECUTOR_INSTANCE": "second",
            },
            ready=lambda: answers_ok(url),
        )
        return [*processes[:at], first, second, *processes[at + 1 :]]


def slow(**kwargs: Any) -> str:
    """One of the flood."""
    import time

    time.sleep(2.0)  # SLOW_S; a handler is pickled by itself
    return "at last"


def quick(**kwargs: Any) -> str:
    """The handler whose wait is measured."""
    return "done"


class Road:
    """Events in, waits out."""

    def __init__(self, stack: Stack, producer: Producer, ledger: Ledger) -> None:
        self._stack = stack
        self._producer = producer
        self._ledger = ledger
        self._flooded = 0  # alice's runs up to now

    def register(self, user: str, name: str, tag: str, handler: Callable[..., Any]) -> None:
        """As a notebook does it."""
        connection = Connection(self._stack.layout.at("btrdb"), self._stack.layout.api_keys[user])
        with contextlib.redirect_stdout(io.StringIO()):
            register(connection, name, HOOK, "", "", tags=[tag])(handler)

    def publish(self, tag: str, count: int) -> list[str]:
        """So many events of that tag; their RequestIDs."""
        ids = []
        for _ in range(count):
            event = an_event(tag)
            ids.append(str(event["RequestID"]))
            headers = cloud_event_headers(HOOK, ids[-1], "/bench", str(event["SubmittedAt"]))
            self._producer.send(HOOK, encode(HOOK, event), key=ids[-1].encode(), headers=headers)
        self._producer.flush(30.0)
        return ids

    def waits(self, count: int) -> list[float]:
        """How long bob's runs waited, ms each. His events come at a steady pace, whether those before have ended or not."""
        ids = []
        start = time.monotonic()
        for number in range(count):
            time.sleep(max(start + number * PACE_S - time.monotonic(), 0))
            ids += self.publish("calm", 1)
        among = ", ".join(f"'{request_id}'" for request_id in ids)
        self.until(
            f"SELECT count(*) FROM run WHERE request_id IN ({among}) AND ended_at_ms IS NOT NULL", lambda n: n == count
        )
        query = (
            select(RunRow.state, AttemptRow.claimed_at_ms - RunRow.queued_at_ms)
            .join(AttemptRow, AttemptRow.run_id == RunRow.id)
            .where(RunRow.request_id.in_(ids))
        )
        with self._ledger.read() as session:
            found = session.execute(query).all()
        if [state for state, _ in found] != ["succeeded"] * count:
            raise SystemExit(f"bob's runs ended as {sorted({state for state, _ in found})}, {len(found)} of {count}")
        return [float(wait) for _, wait in found]

    def flood(self) -> None:
        """alice's slow handlers meet many events at once; returns when all their runs are queued and hers run."""
        for number in range(FLOOD_HANDLERS):
            self.register("alice", f"slow{number}", "flood", slow)
        self.publish("flood", FLOOD_EVENTS)
        self._flooded += FLOOD_EVENTS * FLOOD_HANDLERS
        self.until("SELECT count(*) FROM run WHERE owner = 'alice'", lambda n: n >= self._flooded)
        self.until("SELECT count(*) FROM run WHERE owner = 'alice' AND state = 'running'", lambda n: n > 1)

    def ebb(self) -> None:
        """alice removes her handlers, which cancels what waits; returns when the last of her runs has ended."""
        with self._ledger.write() as session:
            for view in list_handlers(session):
                if view.owner == "alice":
                    remove(session, view.id, "alice", False)
        self.until("SELECT count(*) FROM run WHERE owner = 'alice' AND ended_at_ms IS NULL", lambda n: n == 0)

    def at_work(self) -> int:
        """How many of alice's runs run now."""
        with self._ledger.read() as session:
            return int(
                session.scalar(text("SELECT count(*) FROM run WHERE owner = 'alice' AND state = 'running'")) or 0
            )

    def until(self, query: str, good: Callable[[int], bool]) -> None:
        """Waits until the query's number is good; raises SystemExit when it never is."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with self._ledger.read() as session:
                if good(int(session.scalar(text(query)) or 0)):
                    return
            time.sleep(0.01)
        raise SystemExit(f"waited in vain for {query}")


def measure(road: Road) -> tuple[list[list[float]], list[list[float]], int]:
    """Waits of each round, idle and flooded, and the most slots that the flood was seen to have."""
    road.register("bob", "quick", "calm", quick)
    idle, flooded, most = [], [], 0
    for number in range(ROUNDS):
        road.waits(WARM_UP)
        idle.append(road.waits(EVENTS))
        tell.progress(f"idle, round {number + 1}: p99 {percentile(idle[-1], 0.99):.0f} ms")
        road.flood()
        road.waits(WARM_UP)
        most = max(most, road.at_work())
        flooded.append(road.waits(EVENTS))
        most = max(most, road.at_work())
        tell.progress(
            f"flooded, round {number + 1}: p99 {percentile(flooded[-1], 0.99):.0f} ms; the flood had {most} slots"
        )
        road.ebb()
    return idle, flooded, most


def main() -> int:
    """Brings up a stack, measures, writes bench/results/fairness.json, takes the stack down."""
    kafka.fetch(tell.progress)
    folder: Path = ROOT / ".devstack" / f"bench-{os.getpid()}"
    stack = WideStack(folder)
    try:
        stack.start(tell.progress)
        os.environ.update(stack.layout.notebook_env(stack.bootstrap))
        broker = open_broker(StreamSettings())
        ledger = Ledger.open(stack.layout.ledger_url)
        idle, flooded, most = measure(Road(stack, broker.producer(), ledger))
        broker.close()
        ledger.close()
    finally:
        stack.stop()
    shutil.rmtree(folder)
    show(idle, flooded)
    p99 = [[percentile(waits, 0.99) for waits in rounds] for rounds in (idle, flooded)]
    middle = [statistics.median(value for waits in rounds for value in waits) for rounds in (idle, flooded)]
    write(
        "fairness",
        {
            "flood_runs": FLOOD_EVENTS * FLOOD_HANDLERS,
            "slots": EXECUTORS * SLOTS,
            "slots_of_flood": most,
            "events": EVENTS,
            "pace_s": PACE_S,
            "rounds": ROUNDS,
            "wait_p50_idle_ms": middle[0],
            "wait_p50_flooded_ms": middle[1],
            "wait_p99_idle_ms": statistics.median(p99[0]),
            "wait_p99_flooded_ms": statistics.median(p99[1]),
            "ratio_flooded": statistics.median(p99[1]) / max(statistics.median(p99[0]), 1.0),
        },
    )
    return 0


def show(idle: list[list[float]], flooded: list[list[float]]) -> None:
    """A table for people."""
    rows = []
    for number, (one, other) in enumerate(zip(idle, flooded, strict=True), start=1):
        for name, waits in (("idle", one), ("flooded", other)):
            figures = [percentile(waits, share) for share in (0.5, 0.9, 0.99, 1.0)]
            rows.append((f"{name}, round {number}", *(f"{value:,.0f}" for value in figures)))
    title = f"bob's wait for a slot, ms, while alice has {FLOOD_EVENTS * FLOOD_HANDLERS:,} slow runs queued, and while she has none"
    table(title, ("", "p50", "p90", "p99", "max"), rows)


if __name__ == "__main__":
    sys.exit(main())
