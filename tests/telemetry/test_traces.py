"""Spans reach a collector by OTLP when the switch is on; when it is off a trace is passed on as it came."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry import traces
from tests.telemetry.otlp import Collector, collector

ROOT = Path(__file__).resolve().parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and this process sending to it."""
    with collector() as made:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.endpoint)
        traces.setup("test")
        yield made
        traces.close()


def test_a_span_comes_with_its_parent_its_time_and_what_is_known_of_it(receiver: Collector) -> None:
    with traces.span("outer", PARENT, "consumer", run_id="r1") as outer:
        traces.record("inner", outer.traceparent, 1_000, 2_000, attempt=2)
        outer.note(outcome="failed")
        outer.fail("ValueError")
    traces.close()

    inner, found = receiver.wait(lambda spans: len(spans) == 2)

    assert (found.service, found.name, found.trace, found.parent) == (
        "eventproc-test",
        "outer",
        PARENT[3:35],
        PARENT[36:52],
    )
    assert found.attributes == {"eventproc.run_id": "r1", "eventproc.outcome": "failed"}
    assert found.failed and not inner.failed
    assert (inner.trace, inner.parent, inner.start_ns, inner.end_ns) == (found.trace, found.id, 1_000, 2_000)


def test_without_a_parent_a_trace_begins_and_links_name_others(receiver: Collector) -> None:
    with traces.span("email", links=(PARENT, "nonsense", "")):
        pass
    traces.close()

    (found,) = receiver.wait(lambda spans: len(spans) == 1)

    assert (found.parent, found.links) == ("", (PARENT[36:52],))
    assert len(found.trace) == 32


def test_what_the_producer_did_not_sample_is_passed_on_but_not_sent(receiver: Collector) -> None:
    with traces.span("dropped", UNSAMPLED) as dropped:
        assert dropped.traceparent.startswith(UNSAMPLED[:35]) and dropped.traceparent.endswith("-00")
    with traces.span("kept", PARENT):
        pass
    traces.close()

    assert [span.name for span in receiver.wait(bool)] == ["kept"]


def test_what_is_raised_within_makes_a_failed_span(receiver: Collector) -> None:
    with pytest.raises(ValueError, match="no"), traces.span("work", PARENT):
        raise ValueError("no")
    traces.close()

    assert receiver.wait(bool)[0].failed


def test_a_collector_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    traces.setup("test")
    with traces.span("work", PARENT) as span:
        assert span.traceparent[:35] == PARENT[:35]

    traces.close()


def test_without_the_switch_a_trace_goes_on_as_it_came() -> None:
    with traces.span("work", PARENT) as span:
        assert (span.traceparent, span.trace_id) == (PARENT, PARENT[3:35])
        span.note(a=1)
        span.fail("why")
    with traces.span("work") as span:
        assert span.traceparent == ""


@pytest.mark.parametrize(
    "text",
    ["", "00-abc", PARENT.upper(), PARENT + "-more", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "01" + PARENT[2:]],
)
def test_what_is_no_traceparent_counts_as_none(text: str) -> None:
    assert traces.valid(text) == ""
    assert traces.of_headers((("traceparent", text.encode()),)) == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is 'zipkin': Input should be 'none' or 'otlp'"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json': Input should be 'grpc'",
        ),
    ],
)
def test_a_setting_that_is_not_right_ends_the_process_and_says_so(name: str, value: str, said: str) -> None:
    code = "from telemetry import traces; traces.setup('test')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={name: value}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_no_station_pays_for_the_sdk_while_the_switch_is_off() -> None:
    code = "import sys; from telemetry import traces; traces.setup('test'); print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
