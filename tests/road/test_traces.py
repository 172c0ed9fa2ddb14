"""One trace leads from the producer over dispatch, wait and run, with the handler's calls to BTrDB, to the email."""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path
from typing import Any

import pytest

from examples.make_comtrade import fault_archive
from tests.road.test_road import a_tag, ingest
from tests.telemetry.otlp import Received

pytestmark = pytest.mark.road

ROAD = {"dispatch ctingress.on_complete", "wait", "run", "handler", "email"}


def asks_btrdb(btrdb: Any, **kwargs: Any) -> str:
    return str(len(btrdb.list_collections()))


def of_trace(road: Any, trace: str, names: set[str]) -> dict[str, Received]:
    """Its spans by name, once those are there."""

    def there(spans: list[Received]) -> bool:
        return names <= {span.name for span in spans if span.trace == trace}

    return {span.name: span for span in road.collector.wait(there, 120.0) if span.trace == trace}


def test_a_producer_s_trace_goes_on_to_the_email(road: Any) -> None:
    tag, trace, producer = a_tag(), uuid.uuid4().hex, secrets.token_hex(8)
    road.register("traced", asks_btrdb, [tag])

    request_id = road.publish([tag], traceparent=f"00-{trace}-{producer}-01")

    (run,) = road.ended(request_id, 1)
    spans = of_trace(road, trace, ROAD | {"btrdb ListCollections"})
    dispatch, done = spans["dispatch ctingress.on_complete"], spans["run"]
    assert dispatch.parent == producer
    assert spans["wait"].parent == done.parent == dispatch.id
    assert spans["handler"].parent == spans["btrdb ListCollections"].parent == spans["email"].parent == done.id
    services = {name: spans[name].service for name in ("wait", "run", "email", "btrdb ListCollections")}
    assert set(services.values()) == {
        "eventproc-registry", "eventproc-executor", "eventproc-notifier", "eventproc-btrdb"
    }  # fmt: skip
    assert done.attributes["eventproc.run_id"] == run.run_id
    assert done.attributes["eventproc.outcome"] == "succeeded"


def test_an_archive_s_trace_begins_with_its_ingest(road: Any, tmp_path: Path) -> None:
    tag = a_tag()
    road.register("traced-archive", asks_btrdb, [tag])
    fault_archive(tmp_path / "fault.zip")

    done = ingest(tmp_path / "fault.zip", tag)
    assert done.returncode == 0, done.stderr

    def begun(spans: list[Received]) -> list[Received]:
        mine = (span for span in spans if span.name == "ingest")
        return [span for span in mine if span.attributes["eventproc.request_id"] in done.stdout]

    (first,) = begun(road.collector.wait(lambda spans: bool(begun(spans))))
    spans = of_trace(road, first.trace, ROAD)
    assert first.parent == ""
    assert spans["dispatch ctingress.on_complete"].parent == first.id
