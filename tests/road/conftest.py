"""One stack of real processes for all tests in this folder, with what they need to look into it."""

import contextlib
import datetime
import io
import json
import os
import signal
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from btrdbextras import Connection
from btrdbextras.eventproc import list_handlers, register
from devstack import kafka, tell
from devstack.stack import Stack
from ledger import Ledger
from ledger.outbox import RunView
from ledger.runs import runs
from schemas.encoding import cloud_event_headers, encode
from schemas.records import Outcome
from stream.connect import open_broker
from stream.settings import StreamSettings
from telemetry.traces import as_header
from tests.telemetry.otlp import Apart, collector_apart

HOOK = "ctingress.on_complete"
PATIENCE_S = 120.0

T = TypeVar("T")


def _wait_for(look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """What look() gives once it gives something; fails naming what was waited for."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience_s:.0f} s for {what}")
        time.sleep(0.05)
    return found


class Road:
    """A running stack, as a user, a producer and an operator would use it."""

    def __init__(self, stack: Stack, collector: Apart) -> None:
        """collector: where the stack's traces go."""
        self.stack = stack
        self.collector = collector
        self.env = {**collector.env, **stack.layout.notebook_env(stack.bootstrap)}
        self.ledger = Ledger.open(stack.layout.ledger_url)
        self.broker = open_broker(StreamSettings(bootstrap_servers=stack.bootstrap))
        self.producer = self.broker.producer()

    wait_for = staticmethod(_wait_for)

    def connection(self, user: str = "alice") -> Any:
        return Connection(self.stack.layout.at("btrdb"), self.stack.layout.api_keys[user])

    def register(self, name: str, function: Callable[..., Any], tags: Sequence[str], user: str = "alice") -> None:
        mail = f"{name}@example.com"
        with contextlib.redirect_stdout(io.StringIO()):
            register(self.connection(user), name, HOOK, mail, mail, tags=list(tags))(function)

    def handlers(self) -> list[Any]:
        return list_handlers(self.connection())

    def publish(self, tags: Sequence[str], *, as_json: bool = False, traceparent: str = "", **changed: Any) -> str:
        request_id = str(uuid.uuid4())
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        event = {
            "DataSets": [],
            "File": "by-hand.zip",
            "RequestID": request_id,
            "SubmittedAt": now,
            "Tags": list(tags),
            **changed,
        }
        if as_json:
            self.producer.send(HOOK, json.dumps(event).encode(), key=request_id.encode())
        else:
            headers = cloud_event_headers(HOOK, request_id, "/tests", now) + as_header(traceparent)
            self.producer.send(
                HOOK, encode(HOOK, {"Recordings": [], **event}), key=request_id.encode(), headers=headers
            )
        self.producer.flush(30.0)
        return request_id

    def runs(self, request_id: str) -> list[RunView]:
        with self.ledger.read() as session:
            return runs(session, request_id=request_id)

    def ended(self, request_id: str, count: int) -> list[RunView]:
        def look() -> list[RunView] | None:
            found = self.runs(request_id)
            return found if len(found) == count and all(isinstance(run.state, Outcome) for run in found) else None

        return self.wait_for(look, f"{count} runs of {request_id} to end")

    def mails_to(self, recipient: str) -> list[Any]:
        mails = [tell.read_mail(path) for path in sorted(self.stack.layout.mail.glob("*.eml"))]
        return [mail for mail in mails if mail["To"] == recipient]

    def mail_to(self, recipient: str) -> Any:
        return self.wait_for(lambda: self.mails_to(recipient), f"an email to {recipient}")[0]

    def pid(self, process: str) -> int:
        return int((self.stack.layout.state / "pids" / f"{process}.pid").read_text())

    def all_ready(self) -> bool:
        try:
            for url in self.stack.layout.metrics_urls():
                urllib.request.urlopen(url.replace("metrics", "readyz"), timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self, process: str) -> None:
        """kill -9, then waits until the supervisor has started it anew."""
        old = self.pid(process)
        os.kill(old, signal.SIGKILL)
        self.wait_for(lambda: self.pid(process) != old, f"{process} to be started again")


@pytest.fixture(autouse=True)
def _as_in_a_notebook(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that `make up` tells, while a test walks the road; no longer, for others start Kafkas of their own."""
    if "road" in request.fixturenames:
        for name, value in request.getfixturevalue("road").env.items():
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    kafka.fetch(lambda text: None)
    folder: Path = tmp_path_factory.mktemp("stack")
    stack = Stack(folder)
    with collector_apart(tmp_path_factory.mktemp("collector")) as made:
        try:
            with pytest.MonkeyPatch.context() as env:
                for name, value in made.env.items():
                    env.setenv(name, value)
                stack.start(lambda text: None)
            yield Road(stack, made)
        finally:
            stack.stop()
