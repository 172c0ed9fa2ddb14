"""make bench-dispatch: events in -> tasks out, beside a bare producer of the same messages, with few and with many handlers.

A dispatcher process as an operator runs it, a real Kafka, and a ledger that keeps all its promises: an event's offset is committed
when its matches and runs are durable. Nobody claims here, so the cap on invitations that are out per owner is put out of the way;
executors that keep up do the same, so what waits is ended between rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from kafka import KafkaProducer
from sqlalchemy import select, text

from bench.figures import write
from bench.ground import HOOK, RUNTIME, Ground, an_event, database, station, table
from dispatcher.invite import task_message
from ledger import Ledger
from ledger.bulk import insert_rows
from ledger.fair import Invitation
from ledger.handlers import NewHandler, matchable, register
from ledger.match import TagIndex
from ledger.tables import HandlerRow, HandlerVersionRow
from schemas.encoding import cloud_event_headers, encode
from schemas.events import read_event
from schemas.topics import tasks_topic

SIZES = (10, 1000, 10_000)
MATCHING = 10
EVENTS = 1000
WARM_UP = 100
ROUNDS = 3
PATIENCE_S = 120.0
BARE = "bench.bare"


@dataclass
class Measured:
    """Tasks per second, round by round."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: both sides of one saw the same machine."""
        return statistics.median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=True))


def main() -> int:
    """Brings up Kafka and one dispatcher after the other, measures, writes bench/results/dispatch.json."""
    kind = os.environ.get("BENCH_LEDGER", "sqlite")
    found: dict[int, Measured] = {}
    match_us: dict[int, float] = {}
    with Ground("dispatch") as ground, contextlib.closing(bare_producer(ground)) as bare:
        for size in SIZES:
            with database(kind, ground.folder, f"dispatch{size}") as url:
                ledger = Ledger.open(url)
                ledger.migrate()
                populate(ledger, size)
                match_us[size] = matching(ledger)
                with running(ground, url, size) as pid:
                    found[size] = measure(ground, ledger, pid, bare)
                ledger.close()
    show(kind, found, match_us)
    figures: dict[str, float | int | str] = {
        "ledger": kind,
        "events": EVENTS,
        "matching_handlers": MATCHING,
        "rounds": ROUNDS,
    }
    for size, one in found.items():
        figures[f"tasks_per_s_{size}"] = statistics.median(one.ours)
        figures[f"tasks_per_s_{size}_min"], figures[f"tasks_per_s_{size}_max"] = min(one.ours), max(one.ours)
        figures[f"bare_producer_per_s_{size}"] = statistics.median(one.bare)
        figures[f"ratio_bare_producer_{size}"] = one.ratio
        figures[f"match_us_{size}"] = match_us[size]
    write("dispatch" if kind == "sqlite" else f"dispatch-{kind}", figures)
    return 0


def populate(ledger: Ledger, size: int) -> None:
    """size handlers, each of another owner; MATCHING of them meet the bench's events. Copies of one that was registered."""
    new = NewHandler(HOOK, "h0", "user0", ("north",), "", "", RUNTIME, b"pickle")
    with ledger.write() as session:
        first = register(session, new, new.owner).id
        handler = dict(session.execute(select(HandlerRow.__table__)).mappings().one())
        version = dict(session.execute(select(HandlerVersionRow.__table__)).mappings().one())
        handlers, versions = [], []
        for number in range(1, size):
            tags = ["north"] if number < MATCHING else [f"bay-{number % 97}", f"line-{number}"]
            handlers.append({**handler, "id": first + number, "name": f"h{number}", "owner": f"user{number}"})
            versions.append({**version, "handler_id": first + number, "tags": json.dumps(tags)})
        insert_rows(session, HandlerRow, handlers)
        insert_rows(session, HandlerVersionRow, versions)


def matching(ledger: Ledger) -> float:
    """Time of one match in microseconds, over 2,000 of them."""
    with ledger.read() as session:
        index = TagIndex(matchable(session), 0)
    event = read_event(HOOK, encode(HOOK, an_event("north")))
    began = time.perf_counter()
    for _ in range(2000):
        assert len(index.handlers(event)) == MATCHING
    return (time.perf_counter() - began) / 2000 * 1e6


@contextlib.contextmanager
def running(ground: Ground, url: str, size: int) -> Iterator[int]:
    """A dispatcher process on this ledger, ready; gives its pid."""
    env = {
        "EVENTPROC_LEDGER_URL": url,
        "EVENTPROC_INVITED_PER_OWNER": "1000000",
        "EVENTPROC_REINVITE_AFTER_S": "3600",
        "REGISTRY_RUNTIMES": RUNTIME,
    }
    with station(ground, "dispatcher", f"dispatcher-{size}", env) as pid:
        yield pid


def measure(ground: Ground, ledger: Ledger, pid: int, bare: KafkaProducer) -> Measured:
    """Rounds of both, one after the other, so that both see the same machine."""
    ours(ground, pid, WARM_UP)
    found = Measured()
    for _ in range(ROUNDS):
        end_all(ledger)
        found.bare.append(bare_round(bare))
        found.ours.append(ours(ground, pid, EVENTS))
    with ledger.read() as session:
        runs = session.execute(text("SELECT count(*) FROM run")).scalar_one()
    assert runs == (WARM_UP + ROUNDS * EVENTS) * MATCHING, runs
    return found


def end_all(ledger: Ledger) -> None:
    """Nothing waits any more, as with executors that keep up."""
    with ledger.write() as session:
        session.execute(text("UPDATE run SET state = 'succeeded', invited_at_ms = NULL WHERE state = 'queued'"))


def ours(ground: Ground, pid: int, events: int) -> float:
    """Tasks per second: the events are in Kafka when the dispatcher, held until then, may begin."""
    before = out(ground)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(events):
        event = an_event("north")
        request_id = str(event["RequestID"])
        headers = cloud_event_headers(HOOK, request_id, "/bench", str(event["SubmittedAt"]))
        ground.producer.send(HOOK, encode(HOOK, event), key=request_id.encode(), headers=headers)
    ground.producer.flush(30.0)
    began = time.perf_counter()
    os.kill(pid, signal.SIGCONT)
    while out(ground) < before + events * MATCHING:
        if time.perf_counter() - began > PATIENCE_S:
            raise SystemExit(f"of {events * MATCHING} tasks {out(ground) - before} came out within {PATIENCE_S:.0f} s")
        time.sleep(0.01)
    return events * MATCHING / (time.perf_counter() - began)


def out(ground: Ground) -> int:
    """Tasks in the topic."""
    return sum(ground.admin.end_offsets(tasks_topic(RUNTIME)).values())


def bare_producer(ground: Ground) -> KafkaProducer:
    """kafka-python's producer as it comes: acknowledged by all replicas, idempotent."""
    return KafkaProducer(bootstrap_servers=[ground.bootstrap])


def bare_round(producer: KafkaProducer) -> float:
    """Messages per second: as many of the very same tasks, made beforehand, into a topic of the same shape."""
    now = time.time_ns()
    tasks = [
        task_message(Invitation(str(uuid.uuid4()), f"user{number % MATCHING}", RUNTIME, HOOK), now)
        for number in range(EVENTS * MATCHING)
    ]
    began = time.perf_counter()
    for value, key, headers in tasks:
        producer.send(BARE, value=value, key=key, headers=headers)
    producer.flush()
    return len(tasks) / (time.perf_counter() - began)


def show(kind: str, found: dict[int, Measured], match_us: dict[int, float]) -> None:
    """A table for people."""
    rows = []
    for size, one in found.items():
        spread = f"{min(one.ours):,.0f} to {max(one.ours):,.0f}"
        rows.append(
            (
                f"{size:,}", f"{statistics.median(one.ours):,.0f}", spread, f"{statistics.median(one.bare):,.0f}",
                f"{one.ratio:.2f}", f"{match_us[size]:.1f}",
            )
        )  # fmt: skip
    table(
        f"Dispatch: {EVENTS} events x {MATCHING} matching handlers, {ROUNDS} rounds, ledger {kind}",
        ("handlers", "tasks/s", "spread", "bare producer/s", "ratio", "match us"),
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
