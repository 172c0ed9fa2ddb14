"""What the stations need goes away for a while under load and comes back: nothing is lost, no lease ends, no hand is needed."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.handlers import HandlerView
from schemas.errors import TryLater
from stream.broker import Admin, Broker
from stream.connect import open_broker
from stream.settings import StreamSettings
from tests.chaos.__main__ import register_all
from tests.chaos.handlers import Registered
from tests.chaos.load import Load
from tests.chaos.reckon import expected_runs, reckon, unsettled
from tests.chaos.stage import SHARED, Stage

CONCERNED = {
    "kafka": ("dispatcher-1", "notifier-1", "executor-1"),
    "postgresql": ("registry", "dispatcher-1", "notifier-1"),
    "registry": ("executor-1", "executor-2", "executor-3"),
    "btrdb": ("executor-1", "executor-2", "executor-3"),  # those that have a run to start
    "mail": ("notifier-1", "notifier-2"),
}
"""Whose readiness tells of it, once they have tried."""
SHORT = {
    **SHARED,
    "EVENTPROC_LEASE_S": "24",
    "EXECUTOR_RENEW_S": "2",
    "EXECUTOR_GRACE_S": "20",
    "EXECUTOR_WALL_S": "20",
}
"""A lease of 24 s to outages of 3 to 8 s is what 180 s are to a minute."""
DEFAULTS = {
    "EVENTPROC_LEASE_S": "180",
    "EXECUTOR_RENEW_S": "30",
    "EVENTPROC_REINVITE_AFTER_S": "30",
    "EXECUTOR_GRACE_S": "20",
    "EXECUTOR_WALL_S": "20",  # of those that sleep too long: they are waited for in the end
}
PATIENCE_S = 600.0


class Outage:
    """A stage under load, with what has been published so far."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ledger = Ledger.open(stage.ledger_url)
        self.broker: Broker = open_broker(StreamSettings(bootstrap_servers=stage.bootstrap, request_timeout_ms=4000))
        self.admin: Admin = self.broker.admin()
        until(stage.all_ready, "every station to be ready")
        self.handlers: dict[str, tuple[Registered, HandlerView]] = register_all(
            stage.layout.at("btrdb"), stage.layout.certificates.ca, stage.layout.api_keys, self.ledger
        )
        self._events: dict[str, tuple[str, ...]] = {}

    def of(self, name: str, for_s: float) -> None:
        """The process is away for so long; readiness of those concerned is red meanwhile, everybody's liveness green."""
        self.stage.supervisor.take_down(name)
        notice = any if name == "btrdb" else all
        until(lambda: notice(not self.ready(one) for one in CONCERNED[name]), f"readiness to tell that {name} is away")
        back_at = time.monotonic() + for_s
        while time.monotonic() < back_at:
            assert self.dead() == []
            threading.Event().wait(0.5)
        self.stage.supervisor.bring_back(name)
        until(self.stage.all_ready, f"every station to be ready again after {name} was away")

    def under_load(self, work: Callable[[], None]) -> None:
        """Does the work while events come in and handlers run; then everything has to add up, each handler begun once."""
        load = Load(self.broker.producer(), self.ledger, seed=len(self._events), ahead=60)
        load.start()
        try:
            until(lambda: self.begun() > 0, "the first handler to begin")
            work()
        finally:
            load.stop()
        self._events.update(load.events)
        expected = expected_runs(self._events, self.handlers)
        until(lambda: not self.rest(len(expected)), lambda: self.rest(len(expected)))
        books = reckon(self.ledger, self.admin, self._events, expected, self.stage.layout.state, [])
        assert (books.lost, books.doubled, books.started_again) == ([], [], 0), books

    def rest(self, expected: int) -> str:
        try:
            return unsettled(self.ledger, self.admin, expected)
        except TryLater as error:
            return error.reason

    def begun(self) -> int:
        logs = (self.stage.layout.state / "logs").glob("executor-*.log")
        return sum(path.read_text(errors="replace").count('"begun"') for path in logs)

    def ready(self, station: str) -> bool:
        return _status(f"{self.stage.pages[station]}/readyz") == 200

    def dead(self) -> list[str]:
        """The stations whose liveness is red, or that do not answer, the one that was taken down apart."""
        found = {name: _status(f"{url}/healthz") for name, url in self.stage.pages.items()}
        return [f"{name}: {status}" for name, status in found.items() if status not in (200, 0)]


def _status(url: str) -> int:
    """The answer's code; 0 when nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            json.load(answer)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def until(true: Callable[[], object], what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S:.0f} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stage_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Outage]]:
    """Makes a stage with such settings, one at a time."""
    made: list[Outage] = []

    def make(settings: dict[str, str]) -> Outage:
        stage = Stage(Path(tmp_path_factory.mktemp("outages")), settings=settings)
        stage.start(lambda text: None)
        made.append(Outage(stage))
        return made[-1]

    yield make
    for outage in made:
        outage.broker.close()
        outage.ledger.close()
        outage.stage.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_goes_away_for_a_moment_after_the_other(stage_of: Callable[..., Outage]) -> None:
    outage = stage_of(SHORT)

    def one_after_another() -> None:
        for name in CONCERNED:
            outage.of(name, 2.0)

    outage.under_load(one_after_another)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_minute_without_one_or_all_of_them_by_the_default_settings(stage_of: Callable[..., Outage]) -> None:
    outage = stage_of(DEFAULTS)
    outage.under_load(lambda: outage.of("registry", 60.0))

    def all_at_once() -> None:
        for name in CONCERNED:
            outage.stage.supervisor.take_down(name)
        until_over = time.monotonic() + 60.0
        while time.monotonic() < until_over:
            assert outage.dead() == []
            threading.Event().wait(1.0)
        for name in CONCERNED:
            outage.stage.supervisor.bring_back(name)
        until(outage.stage.all_ready, "every station to be ready again")

    outage.under_load(all_at_once)
