"""A dispatcher killed between its ledger write and its offset commit, the registry changed meanwhile, and the event delivered again.

Real processes, a real Kafka, and the kill point that lies just there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from faults import POINTS
from ledger import Ledger
from ledger.handlers import HandlerView, NewHandler, register, remove
from schemas.contracts import hook_names
from schemas.errors import TryLater
from schemas.topics import tasks_topic, topics
from stream.broker import Broker
from stream.kafka import KafkaBroker
from stream.settings import StreamSettings

from .conftest import HOOK, RUNTIME, an_event

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90.0


class Dispatchers:
    """Starts dispatchers of one group, one after another, on one ledger."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.group = f"dispatcher-{uuid.uuid4().hex[:8]}"
        self.ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", [Fernet.generate_key().decode()])
        self.ledger.migrate()
        settings = StreamSettings(bootstrap_servers=bootstrap, replication=1)
        self.broker: Broker = KafkaBroker(settings)
        self.admin = self.broker.admin()
        self.admin.ensure_topics(topics((RUNTIME,)), 1, settings.max_message_bytes)
        self._env = {
            **os.environ,
            "EVENTPROC_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "EVENTPROC_KAFKA_REPLICATION": "1",
            "DISPATCHER_GROUP": self.group,
            "DISPATCHER_INSTANCE": "the-one",  # so that the next need not wait until the broker misses the one before
            "EVENTPROC_REINVITE_AFTER_S": "1",
            "REGISTRY_RUNTIMES": RUNTIME,
        }

    @contextlib.contextmanager
    def one(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatcher"], cwd=ROOT, env={**self._env, **settings}, stderr=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def handler(self, name: str, tag: str) -> HandlerView:
        with self.ledger.write() as session:
            return register(
                session,
                NewHandler(HOOK, name, "alice", (tag,), "ok@example.com", "bad@example.com", RUNTIME, b"pickle"),
                "alice",
            )

    def publish(self, tag: str) -> str:
        request_id = str(uuid.uuid4())
        producer = self.broker.producer()
        producer.send(HOOK, an_event(tag, request_id=request_id).value, key=request_id.encode())
        producer.flush(30)
        return request_id

    def runs(self, request_id: str) -> list[tuple[str, int, str]]:
        """(handler's name, version, state) of the event's runs."""
        query = (
            "SELECT h.name, r.handler_version, r.state FROM run r JOIN handler h ON h.id = r.handler_id "
            "WHERE r.request_id = :id ORDER BY h.name"
        )
        with self.ledger.read() as session:
            return [tuple(row) for row in session.execute(text(query), {"id": request_id})]

    def invited(self, request_id: str) -> bool:
        """Whether the tasks' topic holds an invitation of the event's run."""
        with self.ledger.read() as session:
            run = session.execute(text("SELECT id FROM run WHERE request_id = :id"), {"id": request_id}).scalar_one()
        return any(message.key == run.encode() for message in self.admin.read(tasks_topic(RUNTIME)))

    def behind(self) -> int:
        return sum(self.admin.lag(self.group, hook) for hook in hook_names())


def until(true: Callable[[], object], what: str) -> None:
    def holds() -> object:
        try:
            return true()
        except TryLater:  # a broker that has just begun knows no coordinator yet
            return False

    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def dispatchers(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Dispatchers]:
    made = Dispatchers(kafka_bootstrap, tmp_path)
    yield made
    made.broker.close()
    made.ledger.close()


def registered_again(dispatchers: Dispatchers, tag: str, view: HandlerView) -> None:
    assert dispatchers.handler(view.name, tag).version == 1


def removed(dispatchers: Dispatchers, tag: str, view: HandlerView) -> None:
    with dispatchers.ledger.write() as session:
        remove(session, view.id, "alice", admin=False)


def another_added(dispatchers: Dispatchers, tag: str, view: HandlerView) -> None:
    dispatchers.handler("another", tag)


@pytest.mark.parametrize(
    ("change", "state"), [(registered_again, "queued"), (removed, "cancelled"), (another_added, "queued")]
)
def test_an_event_delivered_again_after_a_kill_keeps_its_runs_whatever_has_changed(
    dispatchers: Dispatchers, change: Callable[[Dispatchers, str, HandlerView], None], state: str
) -> None:
    tag = uuid.uuid4().hex
    view = dispatchers.handler("mine", tag)
    request_id = dispatchers.publish(tag)
    with dispatchers.one(EVENTPROC_FAULTS="1", EVENTPROC_FAULTS_POINTS="offset.before_commit") as first:
        assert first.wait(PATIENCE_S) == -signal.SIGKILL
    assert dispatchers.runs(request_id) == [("mine", 0, "queued")]
    assert dispatchers.behind() > 0  # the ledger knows, the group does not

    change(dispatchers, tag, view)
    with dispatchers.one():
        until(lambda: dispatchers.behind() == 0, "the event to be delivered again and committed")

    assert dispatchers.runs(request_id) == [("mine", 0, state)]


@pytest.mark.slow
@pytest.mark.parametrize("point", [point for point in POINTS if point.partition(".")[0] not in ("smtp", "run")])
def test_a_dispatcher_killed_at_any_boundary_leaves_nothing_out_and_makes_nothing_twice(
    dispatchers: Dispatchers, point: str
) -> None:
    tag = uuid.uuid4().hex
    dispatchers.handler("mine", tag)
    request_id = dispatchers.publish(tag)
    with dispatchers.one(EVENTPROC_FAULTS="1", EVENTPROC_FAULTS_POINTS=point) as first:
        assert first.wait(PATIENCE_S) == -signal.SIGKILL

    with dispatchers.one():
        until(
            lambda: dispatchers.behind() == 0 and dispatchers.runs(request_id),
            "the event to be dispatched and committed",
        )
        until(lambda: dispatchers.invited(request_id), "its run to be invited")

    assert dispatchers.runs(request_id) == [("mine", 0, "queued")]
