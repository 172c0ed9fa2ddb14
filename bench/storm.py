"""make bench-storm: what an archive, an event, a run and an email cost, and a storm of archives from upload to email beside it.

A whole stack with PostgreSQL, one process of each station, settings as they come; but no digests, so that every run has its email.
Costs are processor time, which other load on the machine changes little; the load is told beside the figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from sqlalchemy import text

from bench.costs import Cost, Meter
from bench.figures import write
from bench.ground import HOOK, an_event, database, table
from bench.predict import Costs, need
from btrdbextras import Connection
from btrdbextras.eventproc import register
from devstack import kafka, tell
from devstack.layout import RUNTIME
from devstack.stack import ROOT, Stack
from devstack.supervisor import Process
from examples.make_comtrade import fault_archive
from ledger import Ledger
from schemas.encoding import cloud_event_headers, encode
from schemas.topics import RESULTS, tasks_topic
from stream.broker import Broker
from stream.connect import open_broker
from stream.settings import StreamSettings

HANDLERS = 10
EVENTS, RUN_EVENTS, ARCHIVES, STORM = 1000, 50, 8, 16
RECORDINGS, RECORDING_S = (
    4,
    10.0,
)  # of seven analog and three status channels at 4,800 Hz: 3.1 MB zipped, 1.9 million points
UPLOADS_AT_ONCE = 4
IDLE_S = 15.0
SETTLE_S = 2.0  # PostgreSQL's sessions tell what they did within a second
PATIENCE_S = 900.0
SETTINGS = {
    "EVENTPROC_MAIL_STORM_AFTER": "0",
    "EXECUTOR_MEMORY_BYTES": str(256 << 20),
    "EVENTPROC_REINVITE_AFTER_S": "30",  # the defaults; the development stack is in more of a hurry
    "EVENTPROC_LEASE_S": "180",
    "EXECUTOR_RENEW_S": "30",
}
RATES = (5_000, 50_000, 500_000)
GROUPS = {"eventproc-dispatcher": HOOK, "eventproc-executor": tasks_topic(RUNTIME), "eventproc-notifier": RESULTS}
SHOWN = ("ctingress", "dispatcher", "registry", "executor", "notifier", "postgresql", "kafka", "btrdb")


class StormStack(Stack):
    """The development stack on another ledger."""

    def __init__(self, state: Path, ledger_url: str) -> None:
        super().__init__(state)
        self.ledger_url = ledger_url

    def _processes(self) -> list[Process]:
        def changed(process: Process) -> Process:
            env = {**process.env, **SETTINGS}
            if "EVENTPROC_LEDGER_URL" in env:
                env["EVENTPROC_LEDGER_URL"] = self.ledger_url
            return dataclasses.replace(process, env=env)

        return [changed(process) for process in super()._processes()]


class Storm:
    """A stack under measurement."""

    def __init__(self, stack: StormStack, ledger: Ledger, broker: Broker, postmaster: int, archive: Path) -> None:
        self.stack = stack
        self.admin = broker.admin()
        self.ledger = ledger
        self.producer = broker.producer()
        self.archive = archive
        pids = {name: self._pid(name) for name in SHOWN if name != "postgresql"} | {"postgresql": postmaster}
        self.meter = Meter(pids, stack.layout.state / "kafka", ledger)
        self.idle = Cost()
        self._asked = 0

    def _pid(self, name: str) -> int:
        return int((self.stack.layout.state / "pids" / f"{name}.pid").read_text())

    def register_all(self) -> None:
        """HANDLERS for each of two tags, of two owners: one lot tells nobody, one sends an email each."""

        def looks(DataSets: list[dict[str, object]], **kwargs: object) -> str:  # noqa: N803 - the hook's name
            return str(len(DataSets))

        for tag, mail in (("quiet", ""), ("mailed", "carol@example.com")):
            for number in range(HANDLERS):
                user = ("alice", "bob")[number % 2]
                connection = Connection(self.stack.layout.at("btrdb"), self.stack.layout.api_keys[user])
                with contextlib.redirect_stdout(io.StringIO()):
                    register(connection, f"{tag}-{number}", HOOK, mail, mail or "carol@example.com", tags=[tag])(looks)

    def measured(self, what: str, work: Callable[[], None]) -> Cost:
        """The cost of the work, without what the stack costs when it is idle."""
        before, asked = self.meter.read(), self._asked
        began = time.monotonic()
        work()
        took = time.monotonic() - began
        self._rest()
        time.sleep(SETTLE_S)
        cost = Cost.between(before, self.meter.read())
        cost = dataclasses.replace(cost, commits=cost.commits - (self._asked - asked))  # our own looks into the ledger
        net = cost.without(self.idle.times(cost.seconds / self.idle.seconds)) if self.idle.seconds else cost
        tell.progress(f"{what}: {took:.1f} s, {net.total_cpu_s:.1f} s of processor time, load {os.getloadavg()[0]:.1f}")
        return dataclasses.replace(net, seconds=took)

    def _rest(self) -> None:
        """Until nobody has anything left to read."""
        deadline = time.monotonic() + PATIENCE_S
        while any(self.admin.lag(group, topic) for group, topic in GROUPS.items()):
            if time.monotonic() > deadline:
                raise SystemExit(f"messages were not read within {PATIENCE_S:.0f} s")
            time.sleep(0.2)

    def count(self, statement: str) -> int:
        self._asked += 1
        with self.ledger.read() as session:
            return int(session.execute(text(statement)).scalar_one())

    def until(self, statement: str, wanted: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.count(statement)) < wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"{found} of {wanted} within {PATIENCE_S:.0f} s: {statement}")
            time.sleep(0.1)

    def publish(self, count: int, tag: str) -> None:
        """Small events, and until they are in the ledger and their runs have come to their end and emails."""
        events, ended, mailed = self.count(ALL_EVENTS), self.count(ENDED), self.count(SENT)
        for _ in range(count):
            event = an_event(tag)
            request_id = str(event["RequestID"])
            headers = cloud_event_headers(HOOK, request_id, "/bench", str(event["SubmittedAt"]))
            self.producer.send(HOOK, encode(HOOK, event), key=request_id.encode(), headers=headers)
        self.producer.flush(60.0)
        self.until(ALL_EVENTS, events + count)
        runs = count * HANDLERS if tag in ("quiet", "mailed") else 0
        self.until(ENDED, ended + runs)
        self.until(SENT, mailed + (runs if tag == "mailed" else 0))

    def upload(self, count: int, tag: str) -> None:
        """Archives over HTTP, and until their emails have been sent."""
        published, ended, mailed = self.count(PUBLISHED), self.count(ENDED), self.count(SENT)
        layout, body = self.stack.layout, self.archive.read_bytes()

        def post(number: int) -> None:
            name = f"storm-{number}.zip"
            answer = http.post(
                "/v1/archives", params={"tags": tag, "name": name, "prefix": f"storm{number}"}, content=body
            )
            answer.raise_for_status()

        with (
            httpx.Client(
                base_url=f"https://{layout.at('ingress')}",
                headers={"Authorization": f"Bearer {layout.api_keys['alice']}"},
                verify=ssl.create_default_context(cafile=str(layout.certificates.ca)),
                timeout=300.0,
            ) as http,
            ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool,
        ):
            list(pool.map(post, range(published, published + count)))
        self.until(PUBLISHED, published + count)
        runs = count * HANDLERS if tag == "mailed" else 0
        self.until(ENDED, ended + runs)
        self.until(SENT, mailed + runs)


ALL_EVENTS = "SELECT count(*) FROM event"
ENDED = "SELECT count(*) FROM run WHERE ended_at_ms IS NOT NULL"
SENT = "SELECT count(*) FROM notification WHERE state = 'sent'"
PUBLISHED = "SELECT count(*) FROM archive WHERE state = 'published'"


def costs_of(storm: Storm) -> Costs:
    """Measured one after the other; what belongs to an earlier one is taken off."""
    event = storm.measured(f"{EVENTS} events that nobody wants", lambda: storm.publish(EVENTS, "nobody")).times(
        1 / EVENTS
    )
    runs = RUN_EVENTS * HANDLERS
    quiet = storm.measured(f"{runs} runs without emails", lambda: storm.publish(RUN_EVENTS, "quiet"))
    run = quiet.without(event.times(RUN_EVENTS)).times(1 / runs)
    mailed = storm.measured(f"{runs} runs with emails", lambda: storm.publish(RUN_EVENTS, "mailed"))
    email = mailed.without(quiet).times(1 / runs)
    archives = storm.measured(f"{ARCHIVES} archives that nobody wants", lambda: storm.upload(ARCHIVES, "nobody"))
    archive = archives.without(event.times(ARCHIVES)).times(1 / ARCHIVES)
    return Costs(archive, event, run, email)


@contextlib.contextmanager
def brought_up(folder: Path) -> Iterator[Storm]:
    """A stack with PostgreSQL, ready; all of it gone afterwards."""
    kafka.fetch(tell.progress)
    folder.mkdir(parents=True)
    archive = folder / "storm.zip"
    fault_archive(archive, recordings=RECORDINGS, seconds=RECORDING_S)
    with database("postgresql", folder, "storm") as url:
        stack = StormStack(folder / "stack", url)
        try:
            stack.start(tell.progress)
            os.environ.update(stack.layout.notebook_env(stack.bootstrap))
            ledger, broker = Ledger.open(url), open_broker(StreamSettings())
            postmaster = int((folder / "postgresql" / "postmaster.pid").read_text().split()[0])
            yield Storm(stack, ledger, broker, postmaster, archive)
            broker.close()
            ledger.close()
        finally:
            stack.stop()


def main() -> int:
    """Measures, compares, tells what greater storms need; writes bench/results/storm.json."""
    folder: Path = ROOT / ".devstack" / f"bench-storm-{os.getpid()}"
    loads = [os.getloadavg()[0]]
    with brought_up(folder) as storm:
        storm.register_all()
        storm.publish(10, "mailed")  # what is done once is done now
        storm.upload(1, "nobody")
        storm.idle = storm.measured("idle", lambda: time.sleep(IDLE_S))
        storm.idle = dataclasses.replace(storm.idle, seconds=IDLE_S + SETTLE_S)
        costs = costs_of(storm)
        happened = storm.measured(f"the storm: {STORM} archives", lambda: storm.upload(STORM, "mailed"))
        size = storm.archive.stat().st_size
    loads.append(os.getloadavg()[0])
    shutil.rmtree(folder)
    show(costs, happened)
    write("storm", figures(costs, happened, storm.idle, size, loads))
    return 0


def show(costs: Costs, happened: Cost) -> None:
    """Tables for people: of one each; the storm beside its prediction; what greater ones need."""
    parts = {"archive": costs.archive, "event": costs.event, "run": costs.run, "email": costs.email}
    rows = [
        (name, *(f"{part.cpu_s.get(name, 0.0) * 1000:.2f}" for part in parts.values())) for name in SHOWN
    ]  # fmt: skip
    rows += [
        ("rows written", *(f"{part.rows:.1f}" for part in parts.values())),
        ("commits", *(f"{part.commits:.2f}" for part in parts.values())),
        ("kept in the ledger, kB", *(f"{part.kept_bytes / 1000:.1f}" for part in parts.values())),
        ("log of the ledger, kB", *(f"{part.wal_bytes / 1000:.1f}" for part in parts.values())),
        ("Kafka, kB", *(f"{part.kafka_bytes / 1000:.2f}" for part in parts.values())),
    ]
    table("Processor time of one, ms", ("", *parts), rows)
    predicted = costs.of_archive(HANDLERS).times(STORM)
    rows = [
        (name, f"{predicted.cpu_s.get(name, 0.0):.2f}", f"{happened.cpu_s.get(name, 0.0):.2f}") for name in SHOWN
    ]  # fmt: skip
    rows.append(("all", f"{predicted.total_cpu_s:.2f}", f"{happened.total_cpu_s:.2f}"))
    title = f"The storm, {STORM} archives x {HANDLERS} handlers in {happened.seconds:.1f} s: processor time, s"
    table(title, ("", "predicted", "measured"), rows)
    needs = [need(costs, rate, HANDLERS) for rate in RATES]
    rows = [(f"{name}, cores", *(f"{one.cores.get(name, 0.0):.2f}" for one in needs)) for name in SHOWN]
    rows += [(f"{name}, processes", *(str(one.processes[name]) for one in needs)) for name in needs[0].processes]
    rows += [
        ("runs/s", *(f"{one.runs_per_s:,.1f}" for one in needs)),
        ("commits/s", *(f"{one.commits_per_s:,.0f}" for one in needs)),
        ("rows/s", *(f"{one.rows_per_s:,.0f}" for one in needs)),
        ("log of the ledger, MB/s", *(f"{one.wal_mb_per_s:.2f}" for one in needs)),
        ("ledger grows, GB/day", *(f"{one.kept_gb_per_day:.1f}" for one in needs)),
        ("Kafka, MB/s", *(f"{one.kafka_mb_per_s:.2f}" for one in needs)),
    ]
    table("What so many archives an hour need", ("", *(f"{rate:,}" for rate in RATES)), rows)


def figures(costs: Costs, happened: Cost, idle: Cost, size: int, loads: list[float]) -> dict[str, float | int | str]:
    """As they are written."""
    predicted = costs.of_archive(HANDLERS).times(STORM)
    found: dict[str, float | int | str] = {
        "archive_bytes": size, "handlers": HANDLERS, "storm_archives": STORM, "storm_s": happened.seconds,
        "storm_cpu_s": happened.total_cpu_s, "storm_cpu_predicted_s": predicted.total_cpu_s,
        "ratio_measured_to_predicted_cpu": happened.total_cpu_s / predicted.total_cpu_s,
        "idle_cores": idle.total_cpu_s / idle.seconds,
        "load_average_before": loads[0], "load_average_after": loads[1],
    }  # fmt: skip
    for kind, part in (("archive", costs.archive), ("event", costs.event), ("run", costs.run), ("email", costs.email)):
        for name in SHOWN:
            found[f"{kind}_{name}_cpu_ms"] = part.cpu_s.get(name, 0.0) * 1000
        found[f"{kind}_rows"], found[f"{kind}_commits"] = part.rows, part.commits
        found[f"{kind}_kept_bytes"] = part.kept_bytes
        found[f"{kind}_wal_bytes"], found[f"{kind}_kafka_bytes"] = part.wal_bytes, part.kafka_bytes
    return found


if __name__ == "__main__":
    sys.exit(main())
