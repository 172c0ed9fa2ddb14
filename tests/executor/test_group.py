"""Executors in a real consumer group: however long handlers run, and whoever comes and goes, each run is started once."""

from __future__ import annotations

import contextlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.ask import Registry
from executor.execute import Execute
from executor.sandbox.job import MIB, Access, Runtime
from executor.sandbox.runtime import SandboxedRuntime
from executor.settings import ExecutorSettings
from ledger.events import Match, record_events
from ledger.runs import RunView, run_view
from schemas.encoding import encode
from schemas.events import Event
from schemas.records import Task, to_plain
from schemas.topics import tasks_topic, topics
from stream import loop
from stream.kafka import KafkaBroker
from stream.kafka_member import KafkaMember
from stream.settings import StreamSettings
from telemetry.health import Health
from tests.executor.conftest import until
from tests.executor.sandbox.conftest import pickled
from tests.registry_server import HOOK, TOKEN, Running, running
from tests.stream.members import generation

RUNTIME = "py3.11"
POLL_INTERVAL_S = 2.0


class One:
    """An executor's loop in a thread, as python -m executor wires it; stop() is what SIGTERM does."""

    def __init__(self, execute: Execute, asks: Registry, broker: KafkaBroker, group: str, runtime: str) -> None:
        self.execute = execute
        self._asks = asks
        self._broker = broker
        self._stop = threading.Event()
        consumer = broker.consumer([tasks_topic(runtime)], group)
        assert isinstance(consumer, KafkaMember)
        self.member = consumer
        self._thread = threading.Thread(target=self._run, args=(group,), daemon=True)
        self._thread.start()

    def _run(self, group: str) -> None:
        loop.run(
            self.member, self.execute, dead_letters=self._broker.producer(), group=group, health=Health("executor"),
            stop=self._stop, room=self.execute.free_slots, wait_for_room=self.execute.wait_for_slot,
        )  # fmt: skip
        self.member.close()

    def generation(self) -> int:
        """The group's generation as this member knows it: it grows with every rebalance."""
        return generation(self.member) if self.member._client is not None else -1

    def partitions(self) -> int:
        return len(self.member.assignment())

    def stop(self, grace_s: float = 60.0) -> int:
        """Returns how many runs had to be killed."""
        self._stop.set()
        self._thread.join(60)
        killed = self.execute.stop(grace_s)
        self._asks.close()
        return killed


class Group:
    """A registry, a sandbox, a group of its own on the real broker."""

    def __init__(self, registry: Running, sandbox: SandboxedRuntime, bootstrap: str, folder: Path) -> None:
        self.registry = registry
        self.name = f"executor-{uuid.uuid4().hex[:8]}"
        # of its own: another test's topic for py3.11 may have one partition alone, which two members cannot share
        self.runtime = f"{RUNTIME}-{uuid.uuid4().hex[:8]}"
        settings = StreamSettings(
            bootstrap_servers=bootstrap,
            replication=1,
            max_poll_interval_ms=int(POLL_INTERVAL_S * 1000),
            session_timeout_ms=6000,
        )
        self.broker = KafkaBroker(settings)
        self.admin = self.broker.admin()
        self.admin.ensure_topics(topics((self.runtime,)), 1, settings.max_message_bytes)
        self._sandbox = sandbox
        self._folder = folder
        self._made: list[One] = []

    def executor(self, slots: int = 1) -> One:
        settings = ExecutorSettings(
            runtimes=f"{self.runtime}={sys.executable}", registry=self.registry.internal, token_file=self._folder / "none",
            btrdb_endpoint="127.0.0.1:4411", memory_bytes=512 * MIB, wall_s=120, slots=slots,
        )  # fmt: skip
        asks = Registry(self.registry.internal, lambda: TOKEN, self.registry.ca, 5.0, 64 * MIB)
        step = Execute(settings, asks, self.broker.producer(), {self.runtime: self._sandbox}, uuid.uuid4().hex)
        self._made.append(One(step, asks, self.broker, self.name, self.runtime))
        return self._made[-1]

    def invite(self, handler: Callable[..., Any], count: int = 1) -> list[str]:
        """Runs of the handler, invited in Kafka."""
        view = self.registry.register(name=uuid.uuid4().hex, blob=pickled(handler)).handler
        producer = self.broker.producer()
        ids = []
        for _ in range(count):
            event = Event(HOOK, str(uuid.uuid4()), ("north",), "a.zip", "", {"File": "a.zip", "DataSets": []})
            with self.registry.ledger.write() as session:
                (recorded,) = record_events(session, [(event, [Match(view.id, view.version, "alice", self.runtime)])])
            run_id = recorded.invitations[0].run_id
            value = encode("task", to_plain(Task(run_id, "alice", self.runtime, HOOK, 0)))
            producer.send(tasks_topic(self.runtime), value, key=run_id.encode())
            ids.append(run_id)
        producer.flush(30)
        return ids

    def run(self, run_id: str) -> RunView:
        with self.registry.ledger.read() as session:
            view = run_view(session, run_id)
        assert view is not None
        return view

    def close(self) -> None:
        for one in self._made:
            with contextlib.suppress(RuntimeError):
                one.stop(0)
        self.broker.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxedRuntime]:
    runtime = SandboxedRuntime(Runtime(RUNTIME, Path(sys.executable)), Access(None), warm=1, scratch_bytes=64 * MIB)
    runtime.start()
    yield runtime
    runtime.close()


@pytest.fixture
def group(tmp_path: Path, sandbox: SandboxedRuntime, kafka_bootstrap: str) -> Iterator[Group]:
    with running(tmp_path, first_wait_s=0.0) as registry:
        made = Group(registry, sandbox, kafka_bootstrap, tmp_path)
        yield made
        made.close()


def test_a_handler_that_runs_several_times_the_poll_interval_runs_once_and_moves_no_partition(group: Group) -> None:
    def long(**kwargs: Any) -> str:
        __import__("time").sleep(7)
        return "at last"

    one, other = group.executor(), group.executor()
    topic = tasks_topic(group.runtime)
    until(lambda: one.partitions() and other.partitions(), "both to have partitions")
    before = one.generation(), other.generation()

    (run_id,) = group.invite(long)

    until(lambda: group.run(run_id).state == "running", "the claim")
    until(lambda: group.admin.lag(group.name, topic) == 0, "its offset to be committed while the handler runs")
    assert group.run(run_id).state == "running"
    until(lambda: group.run(run_id).state == "reported", "the handler to end")
    assert len(group.run(run_id).attempts) == 1
    assert (one.generation(), other.generation()) == before


def test_executors_that_come_and_go_start_no_run_twice(group: Group) -> None:
    def short(**kwargs: Any) -> str:
        __import__("time").sleep(0.5)
        return "ended"

    ids = group.invite(short, 24)
    first = group.executor(slots=2)
    until(lambda: any(group.run(run_id).state != "queued" for run_id in ids), "the first claim")
    second = group.executor(slots=2)
    until(second.partitions, "the second to have partitions")

    killed = first.stop()  # a rolling restart: the one goes, another comes
    third = group.executor(slots=2)
    until(third.partitions, "the third to have partitions")
    killed += second.stop()

    until(lambda: all(group.run(run_id).state == "reported" for run_id in ids), "all runs to end")
    assert killed == 0
    assert [len(group.run(run_id).attempts) for run_id in ids] == [1] * len(ids)
