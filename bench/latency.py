"""make bench-latency: from an event's publishing to the handler's first line, on an idle development stack."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from bench.figures import percentile, write
from btrdbextras import Connection
from btrdbextras.eventproc import register
from devstack import kafka, tell
from devstack.stack import ROOT, Stack
from ledger import Ledger
from ledger.outbox import RunView
from ledger.runs import runs
from schemas.encoding import cloud_event_headers, encode
from schemas.records import Outcome
from stream.broker import Producer
from stream.connect import open_broker
from stream.settings import StreamSettings

HOOK = "ctingress.on_complete"
WARM_UP = 20
EVENTS = 200
PATIENCE_S = 60.0


def first_line(**kwargs: Any) -> str:
    """The handler that is measured: says when its first line ran."""
    import time

    return str(time.time_ns())


def publish(producer: Producer) -> tuple[str, int]:
    """Publishes one small event; returns its RequestID and when, ns since the epoch, read before it was sent."""
    request_id = str(uuid.uuid4())
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    event = {
        "DataSets": [],
        "File": "bench.zip",
        "RequestID": request_id,
        "SubmittedAt": now,
        "Tags": [],
        "Recordings": [],
    }
    value = encode(HOOK, event)
    at = time.time_ns()
    producer.send(HOOK, value, key=request_id.encode(), headers=cloud_event_headers(HOOK, request_id, "/bench", now))
    producer.flush(10.0)
    return request_id, at


def await_run(ledger: Ledger, request_id: str) -> RunView:
    """The event's one run when it has ended; raises SystemExit when it does not succeed in time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with ledger.read() as session:
            found = runs(session, request_id=request_id)
        if found and found[0].state == Outcome.SUCCEEDED:
            return found[0]
        if found and isinstance(found[0].state, Outcome):
            raise SystemExit(f"the run ended as {found[0].state}: {found[0].error}")
        time.sleep(0.01)
    raise SystemExit(f"no run of event {request_id} within {PATIENCE_S:.0f} s")


def measure(stack: Stack) -> dict[str, float | int | str]:
    """Registers the handler, publishes events one at a time, each when the one before has ended."""
    os.environ.update(stack.layout.notebook_env(stack.bootstrap))
    connection = Connection(stack.layout.at("btrdb"), stack.layout.api_keys["alice"])
    with contextlib.redirect_stdout(io.StringIO()):
        register(connection, "first_line", HOOK, "", "", tags=[])(first_line)
    ledger = Ledger.open(stack.layout.ledger_url)
    broker = open_broker(StreamSettings())
    producer = broker.producer()
    took = []
    for number in range(WARM_UP + EVENTS):
        request_id, at = publish(producer)
        run = await_run(ledger, request_id)
        if number >= WARM_UP:
            took.append((int(run.text) - at) / 1e6)
    broker.close()
    ledger.close()
    return {
        "events": EVENTS,
        "published_to_first_line_p50_ms": percentile(took, 0.5),
        "published_to_first_line_p90_ms": percentile(took, 0.9),
        "published_to_first_line_p99_ms": percentile(took, 0.99),
        "published_to_first_line_max_ms": max(took),
        "ratio_p50_to_goal_of_50_ms": percentile(took, 0.5) / 50,
        "ratio_p99_to_goal_of_250_ms": percentile(took, 0.99) / 250,
    }


def main() -> int:
    """Brings up a stack of its own, measures, takes it down."""
    kafka.fetch(tell.progress)
    folder: Path = ROOT / ".devstack" / f"bench-{os.getpid()}"
    stack = Stack(folder)
    try:
        stack.start(tell.progress)
        figures = measure(stack)
    finally:
        stack.stop()
    shutil.rmtree(folder)
    write("latency", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
