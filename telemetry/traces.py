"""Traces: spans by OpenTelemetry, sent by OTLP over gRPC; all of it nothing unless OTEL_TRACES_EXPORTER is otlp.

A context goes from station to station as a W3C traceparent: in Kafka headers, the ledger and calls. Where traces are off it is
passed on as it came, so that a trace goes on behind a station that sends none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from telemetry.settings import from_environment

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

TRACEPARENT = "traceparent"
# https://www.w3.org/TR/trace-context/#traceparent-header; ids of zeros are none
_VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
FLUSH_MS = 3000
Kind = Literal["consumer", "producer", "server", "client", "internal"]


class TraceSettings(BaseSettings):
    """The switch, by OpenTelemetry's own variables; the SDK reads the others: OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, _CERTIFICATE,
    OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, ... (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)."""

    exporter: Literal["none", "otlp"] = Field(
        "none", validation_alias="OTEL_TRACES_EXPORTER", description="otlp: spans are sent"
    )
    protocol: Literal["grpc"] = Field(
        "grpc", validation_alias="OTEL_EXPORTER_OTLP_PROTOCOL", description="the one that is spoken here"
    )
    disabled: bool = Field(False, validation_alias="OTEL_SDK_DISABLED")


class _On:
    """The process's tracer while spans are sent."""

    provider: TracerProvider | None = None
    tracer: Tracer | None = None


class Span:
    """A piece of work. traceparent: the context for what follows from it; '' when there is none."""

    def __init__(self, span: OtelSpan | None, parent: str) -> None:
        self._span = span
        self._parent = parent

    @property
    def traceparent(self) -> str:
        """Its own context, or its parent's where no spans are sent."""
        if self._span is None:
            return self._parent
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def trace_id(self) -> str:
        """For log lines; '' when there is none."""
        return self.traceparent[3:35]

    def note(self, **attributes: str | int | float | bool) -> None:
        """More about it; names with _ for dots: run_id becomes eventproc.run_id."""
        if self._span is not None:
            self._span.set_attributes(_named(attributes))

    def fail(self, why: str) -> None:
        """It did not go well."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, why[:1000]))

    def end(self, at_ns: int | None = None) -> None:
        """It is over, now or at that time (ns since the epoch)."""
        if self._span is not None:
            self._span.end(at_ns)


def setup(station: str) -> None:
    """Reads the environment; ends the process with exit code 2 when it is not right. In the process that is to send, not before a fork."""
    settings = from_environment(TraceSettings)
    if settings.disabled or settings.exporter == "none":
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.namespace": "eventproc"})
    if str(named.attributes.get("service.name", "")).startswith("unknown_service"):
        named = named.merge(Resource({"service.name": f"eventproc-{station}"}))
    # what cannot be sent is given up by the SDK after its own patience: no work waits for a collector
    _On.provider = TracerProvider(resource=named, shutdown_on_exit=False)
    _On.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _On.tracer = _On.provider.get_tracer("eventproc")


def close() -> None:
    """Sends what has not been sent, for FLUSH_MS at most."""
    if _On.provider is not None:
        _On.provider.force_flush(FLUSH_MS)
        _On.provider = _On.tracer = None


def start(
    name: str,
    parent: str = "",
    kind: Kind = "internal",
    start_ns: int | None = None,
    links: Sequence[str] = (),
    **attributes: str | int | float | bool,
) -> Span:
    """A span that end() ends. parent, links: traceparents, those that are none are left out; start_ns: ns since the epoch."""
    parent = valid(parent)
    if _On.tracer is None:
        return Span(None, parent)
    from opentelemetry import trace

    related = [trace.Link(context) for link in links if (context := _context(link)) is not None]
    came_from = _context(parent)
    context = trace.set_span_in_context(trace.NonRecordingSpan(came_from)) if came_from else None
    made = _On.tracer.start_span(
        name,
        context=context,
        kind=trace.SpanKind[kind.upper()],
        attributes=_named(attributes),
        links=related,
        start_time=start_ns,
    )
    return Span(made, parent)


@contextmanager
def span(name: str, parent: str = "", kind: Kind = "internal", **more: Any) -> Iterator[Span]:
    """start() for a block; what the block raises makes it a failed one."""
    made = start(name, parent, kind, **more)
    try:
        yield made
    except BaseException as error:
        made.fail(f"{type(error).__name__}: {error}")
        raise
    finally:
        made.end()


def record(name: str, parent: str, start_ns: int, end_ns: int, kind: Kind = "internal", **attributes: Any) -> None:
    """A span of what is over already."""
    start(name, parent, kind, start_ns, **attributes).end(max(start_ns, end_ns))


def valid(traceparent: str) -> str:
    """The same, or '' when it is no traceparent."""
    return traceparent if _VALID.fullmatch(traceparent) else ""


def of_headers(headers: Sequence[tuple[str, bytes]]) -> str:
    """The traceparent among a message's headers, or ''."""
    found = dict(headers).get(TRACEPARENT, b"")
    return valid(found.decode("ascii", "replace"))


def as_header(traceparent: str) -> list[tuple[str, bytes]]:
    """As a message's header; none for ''."""
    return [(TRACEPARENT, traceparent.encode())] if traceparent else []


def _context(traceparent: str) -> Any:
    if not valid(traceparent):
        return None
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _named(attributes: Mapping[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
    return {f"eventproc.{name}": value for name, value in attributes.items() if value != ""}
