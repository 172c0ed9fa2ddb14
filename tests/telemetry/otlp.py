"""What a collector is to us: an OTLP receiver over gRPC that keeps the spans it is sent; here, or in a process of its own.

python -m tests.telemetry.otlp FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class Received:
    """A span. trace, id, parent in hex, parent '' for a root; links: ids of the spans that it names."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any]
    links: tuple[str, ...]


@dataclass
class Collector(TraceServiceServicer):
    """endpoint: for OTEL_EXPORTER_OTLP_ENDPOINT; spans: all that came."""

    endpoint: str = ""
    spans: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request: Any, context: Any) -> Any:
        with self.changed:
            for resource in request.resource_spans:
                about = _plain(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self.spans += [_received(str(about["service.name"]), span) for span in scope.spans]
            self.changed.notify_all()
        return otlp.ExportTraceServiceResponse()

    def wait(self, enough: Callable[[list[Received]], bool], patience_s: float = 60.0) -> list[Received]:
        """The spans once they are enough; fails with those that came when the time is over."""
        with self.changed:
            assert self.changed.wait_for(lambda: enough(self.spans), patience_s), [s.name for s in self.spans]
            return list(self.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """One that serves on a free port for the block."""
    made = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    add_TraceServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
    made.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(0).wait()


@dataclass(frozen=True)
class Apart:
    """A collector in a process of its own: gRPC's threads do not go with a process that forks others."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to send its traces here, soon after they end."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": (self.folder / "endpoint").read_text(),
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def spans(self) -> list[Received]:
        """All that came so far."""
        whole = (self.folder / "spans").read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [Received(**{**line, "links": tuple(line["links"])}) for line in lines]

    def wait(self, enough: Callable[[list[Received]], bool], patience_s: float = 60.0) -> list[Received]:
        """The spans once they are enough; fails with those that came when the time is over."""
        deadline = time.monotonic() + patience_s
        while not enough(found := self.spans()):
            assert time.monotonic() < deadline, [span.name for span in found]
            time.sleep(0.1)
        return found


@contextmanager
def collector_apart(folder: Path) -> Iterator[Apart]:
    """One that serves on a free port for the block; folder: where it keeps what it is sent."""
    child = subprocess.Popen([sys.executable, "-m", __name__, str(folder)], cwd=Path(__file__).resolve().parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "endpoint").exists():
            assert child.poll() is None and time.monotonic() < deadline, "the collector did not come up"
            time.sleep(0.05)
        yield Apart(folder)
    finally:
        child.terminate()
        child.wait()


def main(folder: Path) -> None:
    """Serves until SIGTERM; a line of JSON for each span."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with collector() as made, (folder / "spans").open("a", buffering=1) as out:
        fresh = folder / "endpoint.new"
        fresh.write_text(made.endpoint)
        fresh.rename(folder / "endpoint")
        while not stop.is_set():
            with made.changed:
                made.changed.wait_for(lambda: made.spans, 0.5)
                new, made.spans[:] = list(made.spans), []
            for span in new:
                out.write(json.dumps(dataclasses.asdict(span)) + "\n")


def _received(service: str, span: Any) -> Received:
    return Received(
        service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.start_time_unix_nano,
        span.end_time_unix_nano, span.status.code == 2, _plain(span.attributes), tuple(link.span_id.hex() for link in span.links),
    )  # fmt: skip


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
