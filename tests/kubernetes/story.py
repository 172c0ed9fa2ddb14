"""What is done, step by step; each step says a line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from devstack.stack import ROOT
from examples import handlers as examples
from examples.make_comtrade import fault_archive
from ledger import Ledger
from ledger.tables import RunRow
from schemas.errors import TryLater
from stream.broker import Admin
from stream.connect import open_broker
from stream.settings import StreamSettings
from tests.chaos.__main__ import complain, patiently, register_all
from tests.chaos.handlers import ALL, Registered
from tests.chaos.havoc import Deed
from tests.chaos.reckon import Books, expected_runs, reckon, unsettled
from tests.kubernetes.backing import Backing
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.load import Ingress

REAL = ROOT.parent / "shared" / "comtrade" / "field_recordings.zip"
HANDLERS = (
    *ALL,
    Registered("fault_report", "alice", ("every",), examples.fault_report, "report@example.com", "report@example.com"),
    Registered("archive_log", "bob", ("every",), examples.archive_log, "log@example.com", "log@example.com"),
)
SETTLE_S = 900.0
PATIENCE_S = 900.0


class Clock:
    """Says lines with the time since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A step is done."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"[{minutes:3d}:{seconds:02d}] {text}", flush=True)


@dataclass
class Users:
    """Alice and bob, their handlers and archives, and the books of what came of them."""

    cluster: Cluster
    backing: Backing
    state: Path

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.backing.ledger_url)
        settings = StreamSettings(bootstrap_servers=self.backing.at("kafka"), request_timeout_ms=4000)
        self._broker = open_broker(settings)
        self.admin: Admin = self._broker.admin()
        with self.ledger.read() as session:
            self._besides = frozenset(session.scalars(select(RunRow.id)))  # of `helm test`
        self.ingress = Ingress(
            f"http://{self.cluster.address('events', 'eventproc-ctingress')}:4415", self.backing.api_keys["alice"]
        )
        self.events: dict[str, tuple[str, ...]] = {}
        backing = self.backing
        self.handlers = register_all(backing.at("btrdb"), backing.ca, backing.api_keys, self.ledger, HANDLERS)

    def close(self) -> None:
        """Closes what it has open."""
        self._broker.close()
        self.ledger.close()

    def send_real(self) -> str:
        """Uploads a recording from the field where there is one, else one of a simulated fault; its name."""
        path, more = REAL, {"timezone": "UTC"}
        if not path.exists():
            path, more = self.state / "fault.zip", {}
            fault_archive(path, broken_pair=True)
        request_id = self.ingress.send(path.read_bytes(), path.name, ("every",), PATIENCE_S, **more)
        self.events[request_id] = ("every",)
        return path.name

    def settle(self) -> float:
        """Waits until all events have come to their ends and emails; for how long. Raises Failed."""
        return self.cluster.until(lambda: not self._rest(), lambda: f"all to come to rest: {self._rest()}", SETTLE_S)

    def _rest(self) -> str:
        try:
            return unsettled(self.ledger, self.admin, len(self._expected()) + len(self._besides))
        except TryLater as error:
            return error.reason

    def _expected(self) -> dict[str, Registered]:
        return expected_runs(self.events, self.handlers)

    def count(self, deeds: Iterable[Deed]) -> Books:
        """The books, as tests/chaos keeps them; what is wrong is printed."""
        done = list(deeds)
        expected = self._expected()
        books = patiently(
            lambda: reckon(self.ledger, self.admin, self.events, expected, self.state, done, self._besides)
        )
        complain(books)
        return books
