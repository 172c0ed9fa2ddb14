"""Recordings -> the event that tells of them, as schemas/hooks/ctingress.on_complete.avsc has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ctingress.name import LONGEST, StreamName
from ctingress.recording import Channel, Config

HOOK = "ctingress.on_complete"


@dataclass(frozen=True)
class Described:
    """A data set that can be ingested. start_ns, end_ns: first and last sample, UTC; source, offset: where UTC came from."""

    name: str
    config: Config
    streams: tuple[StreamName, ...]
    start_ns: int
    end_ns: int
    trigger_ns: int | None
    source: str
    offset: str
    missing: int
    hdr: str | None
    inf: str | None
    processed_at_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A data set that cannot be ingested, and why."""

    name: str
    error: str


def event(
    data_sets: Sequence[Described | Unreadable], file: str, request_id: str, submitted_at: str, tags: Sequence[str]
) -> dict[str, Any]:
    """The event as a mapping by its contract; all times in ns since the epoch, UTC."""
    return {
        "DataSets": [_data_set(data_set) for data_set in data_sets],
        "File": file,
        "RequestID": request_id,
        "SubmittedAt": submitted_at,
        "Tags": list(tags),
        "Recordings": [_recording(data_set) for data_set in data_sets if isinstance(data_set, Described)],
    }


def processed(described: Described, processed_at_ns: Sequence[int]) -> Described:
    """The same, with the instant at which each stream's processing began."""
    return dataclasses.replace(described, processed_at_ns=tuple(processed_at_ns))


def notes(described: Described, channel: Channel) -> dict[str, str]:
    """What a stream's annotations say of its channel; every value is text."""
    config = described.config
    known = {
        "kind": channel.kind,
        "channel": channel.name,
        "index": str(channel.index),
        "phase": channel.phase,
        "circuit": channel.circuit,
        "unit": channel.unit if len(channel.unit) > LONGEST else "",
        "ps": channel.ps,
        "station": config.station,
        "device": config.device,
        "revision": str(config.revision),
        "line_frequency_hz": "" if config.line_frequency_hz is None else _number(config.line_frequency_hz),
        "normal": "" if channel.normal is None else str(channel.normal),
    }
    if channel.kind == "analog":
        known |= {
            "primary": _number(channel.primary),
            "secondary": _number(channel.secondary),
            "to_primary": repr(channel.to_primary),
            "skew_us": _number(channel.skew_us),
        }
    return {key: value for key, value in known.items() if value != ""}


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _data_set(data_set: Described | Unreadable) -> dict[str, Any]:
    if isinstance(data_set, Unreadable):
        return {"Name": data_set.name, "Success": False, "Error": data_set.error, "Streams": None}
    at = data_set.processed_at_ns or (data_set.end_ns,) * len(data_set.streams)
    streams = [
        {"Uuid": str(stream.uuid), "StartNs": data_set.start_ns, "EndNs": data_set.end_ns, "ProcessedAtNs": began}
        for stream, began in zip(data_set.streams, at, strict=True)
    ]
    return {"Name": data_set.name, "Success": True, "Error": "", "Streams": streams}


def _recording(described: Described) -> dict[str, Any]:
    config = described.config
    rates = [{"RateHz": float(Decimal(rate.hz)), "EndSample": rate.end_sample} for rate in config.rates]
    return {
        "Name": described.name,
        "Station": config.station,
        "Device": config.device,
        "Revision": config.revision,
        "LineFrequencyHz": config.line_frequency_hz,
        "SampleRates": rates,
        "StartNs": described.start_ns,
        "TriggerNs": described.trigger_ns,
        "UtcOffsetSource": described.source,
        "UtcOffset": described.offset,
        "TimeQuality": config.time_quality,
        "Hdr": described.hdr,
        "Inf": described.inf,
        "MissingSamples": described.missing,
        "Streams": [
            {
                "Uuid": str(stream.uuid),
                "Collection": stream.collection,
                "Name": stream.name,
                "Unit": channel.unit,
                "Phase": channel.phase,
                "Kind": channel.kind,
                "PS": channel.ps,
                "ToPrimary": channel.to_primary,
                "SkewUs": channel.skew_us,
            }
            for stream, channel in zip(described.streams, config.channels, strict=True)
        ],
    }
