"""Events, as fast as the system takes them: a bounded number of runs is always under way."""

from __future__ import annotations

import datetime
import json
import random
import threading
import uuid

from sqlalchemy import func, select

from ledger import Ledger
from ledger.tables import RunRow
from schemas.errors import TryLater
from schemas.records import Outcome
from stream.broker import Producer
from tests.chaos.handlers import ALL

HOOK = "ctingress.on_complete"
AT_ONCE = 10
TWICE = 0.05


class Load:
    """Publishes in a thread of its own until stop(); events: request id -> tags of what the broker has acknowledged; made: how
    many runs come of them."""

    def __init__(self, producer: Producer, ledger: Ledger, seed: int, ahead: int) -> None:
        """ahead: runs that may be unfinished before more events are published."""
        self._producer = producer
        self._ledger = ledger
        self._draw = random.Random(f"{seed}/load")
        self._ahead = ahead
        self._stop = threading.Event()
        self._before = self.made = 0
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.events: dict[str, tuple[str, ...]] = {}
        self.again = 0

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def stop(self) -> None:
        """Ends once all that was sent is acknowledged; blocks."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._before = self._ended()  # of those before us nothing is under way
        while not self._stop.is_set():
            if self._before + self.made - self._ended() > self._ahead:
                self._stop.wait(0.1)
                continue
            fresh: dict[str, tuple[str, ...]] = {}
            for _ in range(AT_ONCE):
                request_id = str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
                fresh[request_id] = ("every", "rare") if self._draw.random() < 0.02 else ("every",)
            self._publish(fresh)
            self.events.update(fresh)
            self.made += sum(len(set(handler.tags) & set(tags)) for tags in fresh.values() for handler in ALL)
            if self._draw.random() < TWICE * AT_ONCE:
                old = self._draw.choice(list(self.events))
                self._publish({old: self.events[old]})
                self.again += 1

    def _publish(self, events: dict[str, tuple[str, ...]]) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        while True:
            try:
                for request_id, tags in events.items():
                    body = {
                        "DataSets": [], "File": "chaos.zip", "RequestID": request_id, "SubmittedAt": now, "Tags": list(tags)
                    }  # fmt: skip
                    self._producer.send(HOOK, json.dumps(body).encode(), key=request_id.encode())
                self._producer.flush(10.0)
                return
            except TryLater:  # what has arrived of them already arrives again: the same events
                threading.Event().wait(0.1)

    def _ended(self) -> int:
        try:
            with self._ledger.read() as session:
                query = select(func.count()).select_from(RunRow).where(RunRow.state.in_(list(Outcome)))
                return session.scalar(query) or 0
        except TryLater:
            return 0
