"""Executors over a real registry and a real sandbox, with a broker in memory, and tasks for them."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from executor.ask import Registry
from executor.execute import Execute
from executor.packages import Bounds, Packages
from executor.sandbox.job import MIB, Access, Runtime
from executor.sandbox.runtime import SandboxedRuntime
from executor.settings import ExecutorSettings
from ledger.events import Match, record_events
from ledger.runs import RunView, run_view
from schemas.encoding import decode, encode
from schemas.events import Event
from schemas.generated import eventprocapi_pb2 as api
from schemas.records import Result, Task, result_from, to_plain
from schemas.topics import RESULTS, tasks_topic, topics
from stream.memory import MemoryBroker
from stream.messages import Message
from tests.executor.sandbox.conftest import pickled
from tests.package_index import PackageIndex, serving
from tests.registry_server import HOOK, TOKEN, Running, running

RUNTIME = "py3.11"


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, index: PackageIndex) -> Packages:
    bounds = Bounds(64 * MIB, 16 * MIB, 120.0, 512 * MIB)
    return Packages(tmp_path_factory.mktemp("packages"), {RUNTIME: Path(sys.executable)}, index.of(), bounds)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, packages: Packages) -> Iterator[SandboxedRuntime]:
    spool = tmp_path_factory.mktemp("spool")
    runtime = SandboxedRuntime(
        Runtime(RUNTIME, Path(sys.executable)),
        Access(None, packages=packages.folder),
        warm=1,
        scratch_bytes=64 * MIB,
        spool=spool,
    )
    runtime.start()
    yield runtime
    runtime.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, first_wait_s=0.0) as started:
        yield started


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics((RUNTIME,), 1), 1, 8 * MIB)
    return broker


Make = Callable[..., Execute]


@pytest.fixture
def make(
    registry: Running, broker: MemoryBroker, sandbox: SandboxedRuntime, packages: Packages, tmp_path: Path
) -> Iterator[Make]:
    """Makes executors, each with a boot of its own; they are stopped at the end."""
    made: list[tuple[Execute, Registry]] = []

    def start(**changed: Any) -> Execute:
        settings = ExecutorSettings(
            runtimes=f"{RUNTIME}={sys.executable}", registry=registry.internal, token_file=tmp_path / "none",
            btrdb_endpoint="127.0.0.1:4411", memory_bytes=512 * MIB, wall_s=60, flush_timeout_s=0.2, **changed,
        )  # fmt: skip
        asks = Registry(registry.internal, lambda: TOKEN, registry.ca, 5.0, 64 * MIB)
        execute = Execute(settings, asks, broker.producer(), {RUNTIME: sandbox}, uuid.uuid4().hex, packages=packages)
        made.append((execute, asks))
        return execute

    yield start
    for execute, asks in made:
        execute.stop(0)
        asks.close()


@pytest.fixture
def task(registry: Running) -> Callable[..., Message]:
    """Registers a function, makes a run of it, and gives its task message."""

    def make(
        handler: Callable[..., Any],
        name: str = "mine",
        runtime: str = RUNTIME,
        requirements: Sequence[str] = (),
        **options: Any,
    ) -> Message:
        view = registry.register(
            name=name, blob=pickled(handler), requirements=requirements, options=api.Options(**options)
        ).handler
        event = Event(HOOK, str(uuid.uuid4()), ("north",), "a.zip", "", {"File": "a.zip", "DataSets": []})
        with registry.ledger.write() as session:
            (recorded,) = record_events(session, [(event, [Match(view.id, view.version, "alice", runtime)])])
        (invited,) = recorded.invitations
        value = encode("task", to_plain(Task(invited.run_id, "alice", runtime, HOOK, 0)))
        return Message(tasks_topic(RUNTIME), 0, next(offsets), None, value, (), 0)

    offsets = iter(range(1000))
    return make


def run_of(registry: Running, task: Message) -> RunView:
    run_id = decode("task", task.value, task.headers)["run_id"]
    with registry.ledger.read() as session:
        view = run_view(session, run_id)
    assert view is not None
    return view


def until(found: Callable[[], Any], what: str) -> Any:
    """Waits for a condition; 60 s at most."""
    deadline = time.monotonic() + 60
    turn = threading.Event()
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        turn.wait(0.01)
    raise AssertionError(f"waited in vain for {what}")


def results(broker: MemoryBroker) -> list[Result]:
    return [result_from(decode("result", m.value, m.headers)) for m in broker.messages(RESULTS)]


def result(broker: MemoryBroker) -> Result:
    until(lambda: results(broker), "a result")
    (only,) = results(broker)
    return only
