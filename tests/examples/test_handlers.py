"""The demo's handlers, on recordings that say less than the demo's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from examples.handlers import trip_times

UUID = "0d0f5d52-7a0e-5a2c-9a4f-3d2f6c1b8e11"


def status_stream(*values: int) -> Any:
    """What a handler's btrdb gives: a stream with a point every millisecond."""
    points = [(SimpleNamespace(time=1_000_000 * k, value=value), 1) for k, value in enumerate(values)]
    return SimpleNamespace(stream_from_uuid=lambda uuid: SimpleNamespace(values=lambda start, end: points))


def test_changes_are_counted_from_the_start_where_no_trigger_is_told() -> None:
    channel = {"Uuid": UUID, "Kind": "status", "Name": "TRIP"}
    recording = {"Name": "/a.cfg", "Station": "North", "StartNs": 0, "TriggerNs": None, "Streams": [channel]}
    data_set = {"Name": "/a.cfg", "Streams": [{"Uuid": UUID, "StartNs": 0, "EndNs": 2_000_000}]}

    told = trip_times(status_stream(0, 1, 1), [data_set], [recording])

    assert told == "North TRIP -> 1 at +1.0 ms from the start"
