"""Liveness is the age of the last turn; readiness is what dependencies say."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from telemetry import metrics
from telemetry.health import Health
from telemetry.settings import TelemetrySettings

Get = Callable[[str], tuple[int, str]]


@pytest.fixture
def health() -> Iterator[Health]:
    health = Health("dispatcher")
    yield health
    health.close()


@pytest.fixture
def get(health: Health) -> Get:
    port = health.serve("127.0.0.1", 0)

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return get


def test_metrics_are_served_as_prometheus_reads_them(get: Get) -> None:
    metrics.messages_total.labels(topic="eventproc.results", outcome="handled").inc()
    status, text = get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert status == 200
    labels = [sample.labels for sample in families["eventproc_messages"].samples]
    assert {"topic": "eventproc.results", "outcome": "handled"} in labels
    assert families["eventproc_last_turn_age_seconds"].samples[0].value >= 0


def test_a_process_that_turns_is_alive_whatever_its_dependencies_say(health: Health, get: Get) -> None:
    health.ready("kafka", False, "connection refused")
    health.turn()
    status, body = get("/healthz")
    assert status == 200
    assert json.loads(body)["alive"] is True


def test_a_process_that_has_not_turned_for_too_long_is_not_alive_until_it_turns_again(health: Health, get: Get) -> None:
    health._last_turn -= 1000.0  # as if it had been so long
    status, body = get("/healthz")
    assert status == 503
    assert json.loads(body)["alive"] is False and json.loads(body)["last_turn_age_s"] > 999
    health.turn()
    assert get("/healthz")[0] == 200


def test_nobody_is_ready_before_something_has_reported(get: Get) -> None:
    assert get("/readyz")[0] == 503


def test_nobody_is_ready_before_all_that_it_needs_has_been_reached() -> None:
    health = Health("dispatcher", needs=("ledger", "kafka"))

    health.ready("ledger", True)

    status, body = health.ready_answer()
    assert (status, body["checks"]["kafka"]) == (503, {"ok": False, "why": "not reached yet"})
    health.ready("kafka", True)
    assert health.ready_answer()[0] == 200


def test_readiness_names_what_is_not_well_and_why(health: Health, get: Get) -> None:
    health.ready("ledger", True)
    health.ready("kafka", False, "connection refused")
    status, body = get("/readyz")
    assert status == 503
    assert json.loads(body) == {
        "station": "dispatcher",
        "ready": False,
        "checks": {"kafka": {"ok": False, "why": "connection refused"}, "ledger": {"ok": True, "why": ""}},
    }
    health.ready("kafka", True)
    assert get("/readyz")[0] == 200


def test_what_a_process_needs_shows_as_a_metric_by_station_and_check(get: Get) -> None:
    def shown(check: str) -> list[float]:
        families = text_string_to_metric_families(get("/metrics")[1])
        samples = [sample for family in families if family.name == "eventproc_ready" for sample in family.samples]
        return [one.value for one in samples if one.labels == {"station": "notifier", "check": check}]

    one = Health("notifier", needs=("smtp",))
    assert shown("smtp") == [0.0], "before it is reached"
    one.ready("smtp", True)
    one.ready("kafka", False, "connection refused")
    assert (shown("smtp"), shown("kafka")) == ([1.0], [0.0])


def test_a_process_that_was_told_to_end_is_not_ready_but_nothing_that_it_needs_is_away() -> None:
    health = Health("executor")
    health.ready("kafka", True)

    health.stopping()

    status, body = health.ready_answer()
    assert (status, body["checks"]["stopping"]) == (503, {"ok": False, "why": "told to end"})
    assert REGISTRY.get_sample_value("eventproc_ready", {"station": "executor", "check": "kafka"}) == 1
    assert health.live_answer()[0] == 200


def test_what_many_threads_report_is_all_there(health: Health) -> None:
    threads = [threading.Thread(target=health.ready, args=(f"part {n}", True)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(health.ready_answer()[1]["checks"]) == 50


def test_an_unknown_path_is_not_found_and_says_what_there_is(get: Get) -> None:
    status, body = get("/secrets")
    assert status == 404 and "/metrics" in body


def test_a_silent_connection_does_not_keep_others_waiting(health: Health) -> None:
    port = health.serve("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)):
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20).status == 200


def test_a_port_that_is_taken_is_an_error(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError):
        health.serve("127.0.0.1", taken.getsockname()[1])


def test_the_address_is_written_to_the_file_that_the_settings_name(
    health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTPROC_METRICS_HOST", "127.0.0.1")
    monkeypatch.setenv("EVENTPROC_METRICS_PORT", "0")
    monkeypatch.setenv("EVENTPROC_METRICS_FILE", str(tmp_path / "metrics"))
    port = TelemetrySettings().serve(health)
    assert (tmp_path / "metrics").read_text() == f"127.0.0.1:{port}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics"]
