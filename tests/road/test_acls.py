"""The road under the rights at Kafka that schemas/acls.json lists, each station as itself; and without one of them."""

from __future__ import annotations

import contextlib
import io
import os
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from btrdbextras import Connection, eventproc
from devstack.layout import RUNTIME
from devstack.stack import Stack, answers_ok
from devstack.supervisor import Process
from examples.make_comtrade import fault_archive
from ledger import Ledger
from schemas.acls import Acl, acls
from schemas.contracts import hook_names
from schemas.errors import TryLater
from schemas.topics import DEAD_LETTERS, RESULTS, SCHEMAS, tasks_topic, topics
from stream.broker import Broker
from stream.connect import open_broker
from stream.settings import StreamSettings
from tests.secure_kafka import SecureKafka

STATIONS = ("ctingress", "dispatcher", "executor", "notifier")
SETTINGS = {
    "EVENTPROC_KAFKA_MAKE_TOPICS": "false",
    "EVENTPROC_KAFKA_SCHEMA_WAIT_S": "0",
    "EVENTPROC_KAFKA_UNREADABLE_SHARE": "1",
    "EVENTPROC_KAFKA_REQUEST_TIMEOUT_MS": "3000",
    "SWEEPER_RECONCILE_EVERY_S": "1",
    "EVENTPROC_LEASE_S": "8",
    "EXECUTOR_RENEW_S": "2",
    "EXECUTOR_GRACE_S": "1",
    "EXECUTOR_MEMORY_BYTES": str(256 << 20),
    "EXECUTOR_SLOTS": "2",
}
HOOK_TOPIC, TASKS = hook_names()[0], tasks_topic(RUNTIME)
ALL_TOPICS = [topic.name for topic in topics((RUNTIME,))]
READ_SCHEMAS, WRITE_SCHEMAS = (Acl("topic", SCHEMAS, False, operation) for operation in ("Read", "Write"))
WHEN_EXECUTORS_DIE = [Acl("topic", RESULTS, False, "Describe"), Acl("group", "eventproc-notifier", False, "Describe")]
PATIENCE_S = 90.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def principal(station: str) -> str:
    return f"User:CN={station}"


def needed_at_work() -> Iterator[Any]:
    """The rights that are used while events flow; those of schemas are used at the start."""
    for station in STATIONS:
        for right in acls()[station]:
            if right not in (READ_SCHEMAS, WRITE_SCHEMAS) and not (
                station == "dispatcher" and right in WHEN_EXECUTORS_DIE
            ):
                yield pytest.param(station, right, id=f"{station}-{right.operation}-{right.name}")


class GuardedStack(Stack):
    """A Stack whose stations come to a secured Kafka with certificates of their own, and with no right to make topics."""

    def __init__(self, state: Path, kafka: SecureKafka) -> None:
        super().__init__(state)
        self._guard = kafka
        self._runtimes = {RUNTIME: self._runtimes[RUNTIME]}

    def _station(self, name: str, env: dict[str, str], ledger: bool = True, verb: tuple[str, ...] = ()) -> Process:
        made = super()._station(name, env, ledger, verb)
        mine = self._guard.client(name, self.layout.state) if name in STATIONS else {}
        # only the registry has to be there before the next one starts: the others wait for their rights
        ready = made.ready if name == "registry" else (lambda: True)
        return replace(made, env={**made.env, **SETTINGS, **mine}, ready=ready)


class Guarded:
    """The stack, and what pushes at each of its doors."""

    def __init__(self, kafka: SecureKafka, stack: Stack, folder: Path) -> None:
        self.kafka, self.stack = kafka, stack
        self.ledger = Ledger.open(stack.layout.ledger_url)
        self.plain = open_broker(StreamSettings(bootstrap_servers=kafka.plain))
        self.producer = self.plain.producer()
        self.archive = folder / "fault.zip"
        fault_archive(self.archive)
        self.producer.send(SCHEMAS, b"{}", key=b"none of ours")  # so that there is something to read
        self.producer.flush(10)

    def upload(self) -> None:
        layout = self.stack.layout
        answer = httpx.post(
            f"https://{layout.at('ingress')}/v1/archives",
            params={"tags": "north", "name": "fault.zip"},
            headers={"Authorization": f"Bearer {layout.api_keys['alice']}", "Idempotency-Key": uuid.uuid4().hex},
            content=self.archive.read_bytes(),
            verify=ssl.create_default_context(cafile=str(layout.certificates.ca)),
            timeout=30.0,
        )
        assert answer.status_code in (200, 202), answer.text

    def push(self) -> None:
        """An archive, and on each topic something that nobody can read."""
        self.upload()
        for topic in (HOOK_TOPIC, TASKS, RESULTS):
            self.producer.send(topic, b"\xc3\x01unreadable")
        self.producer.flush(10)

    def refused(self, station: str, right: Acl, push: Callable[[], None]) -> None:
        """Waits until the broker has refused this to the station once more: the operation, or a look at the topic before it."""
        resource, asked = f"{right.kind.capitalize()}:LITERAL:{right.name}", {right.operation, "Describe"}

        def denied() -> int:
            return sum(self.kafka.denied(principal(station), operation, resource) for operation in asked)

        before = denied()
        pushed_at = 0.0

        def look() -> bool:
            nonlocal pushed_at
            if time.monotonic() - pushed_at > 2:
                push()
                pushed_at = time.monotonic()
            return denied() > before

        wait_for(look, f"{station} to be refused {right}")

    def ready(self) -> bool:
        return all(answers_ok(url.replace("/metrics", "/readyz")) for url in self.stack.layout.metrics_urls())

    def emails(self) -> int:
        return len(list(self.stack.layout.mail.glob("*.eml")))


def wait_for(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        threading.Event().wait(0.1)


@pytest.fixture(scope="module")
def guarded(secured: SecureKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    secured.allow(principal("topics"), *acls()["topics"])
    with as_client(secured, "topics", folder) as maker:
        maker.admin().ensure_topics(topics((RUNTIME,), 1), 1, 8 * 1024 * 1024)
    for station in STATIONS:
        secured.allow(principal(station), *(right for right in acls()[station] if right != READ_SCHEMAS))
    with pytest.MonkeyPatch.context() as env:
        env.setenv("KAFKA_BOOTSTRAP_SERVERS", secured.ssl)
        stack = GuardedStack(folder / "stack", secured)
    try:
        made = Guarded(secured, stack, folder)
        stack.start(lambda text: None)
        yield made
    finally:
        stack.stop()


@contextlib.contextmanager
def as_client(kafka: SecureKafka, name: str, folder: Path) -> Iterator[Broker]:
    """A broker as this principal comes to it."""
    with pytest.MonkeyPatch.context() as env:
        for variable, value in kafka.client(name, folder).items():
            env.setenv(variable, value)
        settings = StreamSettings(replication=1, request_timeout_ms=2000)
    broker = open_broker(settings)
    yield broker
    broker.close()


def test_a_station_waits_for_its_rights_and_then_nothing_is_refused_from_archive_to_email(guarded: Guarded) -> None:
    for station in STATIONS:  # each reads the schemas first, then tells its own
        guarded.refused(station, READ_SCHEMAS, lambda: None)
        guarded.kafka.forbid(principal(station), WRITE_SCHEMAS)
        guarded.kafka.allow(principal(station), READ_SCHEMAS)
    for station in STATIONS:  # nobody may yet: what one has told, the next need not tell
        guarded.refused(station, WRITE_SCHEMAS, lambda: None)
    for station in STATIONS:
        guarded.kafka.allow(principal(station), WRITE_SCHEMAS)
    wait_for(guarded.ready, "every station to be ready")
    refused = guarded.kafka.log.read_text().count("is Denied")
    register(guarded, "report", lambda **kwargs: "done")

    guarded.push()

    wait_for(guarded.emails, "an email")
    assert guarded.kafka.log.read_text().count("is Denied") == refused


@pytest.mark.parametrize(("station", "right"), list(needed_at_work()))
def test_without_one_of_its_rights_a_station_waits_and_with_it_goes_on(
    guarded: Guarded, station: str, right: Acl
) -> None:
    actual = replace(right, name=TASKS) if right.prefix else right
    guarded.kafka.forbid(principal(station), right)
    try:
        guarded.refused(station, actual, guarded.push)
    finally:
        guarded.kafka.allow(principal(station), right)
    before = guarded.emails()

    guarded.upload()

    wait_for(lambda: guarded.emails() > before and guarded.ready(), "the road to go on")


def test_a_run_whose_executor_died_is_freed_only_with_a_view_of_the_results(guarded: Guarded) -> None:
    def sleeps(**kwargs: Any) -> None:
        import time

        time.sleep(30)

    register(guarded, "sleeps", sleeps)
    wait_for(lambda: not waiting(guarded.ledger), "the other runs to end")
    guarded.upload()
    wait_for(lambda: running(guarded.ledger), "a run to start")
    for right in WHEN_EXECUTORS_DIE:
        guarded.kafka.forbid(principal("dispatcher"), right)
    os.kill(int((guarded.stack.layout.state / "pids" / "executor.pid").read_text()), 9)

    for right in WHEN_EXECUTORS_DIE:
        guarded.refused("dispatcher", right, lambda: None)
        guarded.kafka.allow(principal("dispatcher"), right)


@pytest.mark.parametrize("station", STATIONS)
def test_what_is_not_a_stations_is_refused_to_it(guarded: Guarded, station: str, tmp_path: Path) -> None:
    mine = {(right.name, right.operation) for right in acls()[station] if not right.prefix}
    mine |= {(TASKS, right.operation) for right in acls()[station] if right.prefix}
    with as_client(guarded.kafka, station, tmp_path) as broker:
        for topic in ALL_TOPICS:
            if (topic, "Write") not in mine:
                producer = broker.producer()
                with pytest.raises(TryLater):
                    producer.send(topic, b"forged")
                    producer.flush(2)
            if (topic, "Read") not in mine:
                with pytest.raises(TryLater):
                    list(broker.admin().read(topic))
        with pytest.raises(TryLater):
            broker.admin().committed("another-group", RESULTS)
        with pytest.raises(TryLater):
            broker.admin().keep(DEAD_LETTERS, 1)


def test_every_right_is_at_a_topic_or_group_that_there_is() -> None:
    groups = {f"eventproc-{station}" for station in STATIONS}

    for station, rights in acls().items():
        for right in rights:
            there = ALL_TOPICS if right.kind == "topic" else groups
            assert any(name.startswith(right.name) if right.prefix else name == right.name for name in there), station


def register(guarded: Guarded, name: str, function: Callable[..., Any]) -> None:
    layout = guarded.stack.layout
    mail = f"{name}@example.com"
    with pytest.MonkeyPatch.context() as env, contextlib.redirect_stdout(io.StringIO()):
        env.setenv("BTRDB_CA_BUNDLE", str(layout.certificates.ca))
        connection = Connection(layout.at("btrdb"), layout.api_keys["alice"])
        eventproc.register(connection, name, HOOK_TOPIC, mail, mail, tags=["north"])(function)


def waiting(ledger: Ledger) -> int:
    return _count(ledger, "'queued', 'running', 'reported'")


def running(ledger: Ledger) -> int:
    return _count(ledger, "'running'")


def _count(ledger: Ledger, states: str) -> int:
    with ledger.engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM run WHERE state IN ({states})").scalar() or 0)
