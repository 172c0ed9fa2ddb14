"""An event as the platform would send it, to try a function on."""

import copy
import math
import uuid
from typing import Any, Dict, List

__all__ = ["sample_event"]

HOOKS = ("ctingress.on_complete",)
_START_NS = 1767268800000000000  # 2026-01-01T12:00:00Z
_RATE_HZ = 4800.0
_SAMPLES = 1200
_SPACE = uuid.UUID("6f0e9d0c-7a53-4c0e-9d50-0a8a3f6e2c11")
_CHANNELS = (
    ("IA", "A", "A", "analog", "S", 120.0),
    ("IB", "A", "B", "analog", "S", 120.0),
    ("IC", "A", "C", "analog", "S", 120.0),
    ("VA", "kV", "A", "analog", "P", 1.0),
    ("TRIP", "", "", "status", "", 1.0),
)


def sample_event(hook: str = "ctingress.on_complete") -> Dict[str, Any]:
    """An event of a hook, as a handler gets it: two recordings of a line, and a third file that could not be read.

    Its streams have the form of real ones and are not in any BTrDB: try_handler serves their samples itself when it is not
    told of a BTrDB. The same every time, and yours to change.

    Parameters
    ----------
    hook: str
        One of hooks(conn).

    Returns
    -------
    dict
        DataSets, File, RequestID, SubmittedAt, and Tags and Recordings, which a handler gets when its signature names them.
        Times are ns since the epoch, UTC.

    Example
    -------
    >>> sample_event()['DataSets'][0]['Name']
    '/north/relay_1.cfg'
    """
    if hook not in HOOKS:
        raise ValueError("there is no sample of hook %r; there is of %s" % (hook, ", ".join(HOOKS)))
    recordings = [_recording("/north/relay_%d.cfg" % number, "Relay %d" % number) for number in (1, 2)]
    data_sets = [_data_set(recording) for recording in recordings]
    data_sets.append(
        {"Name": "/north/cut_off.cfg", "Success": False, "Error": "the DAT file is missing", "Streams": None}
    )
    event = {
        "DataSets": data_sets,
        "File": "sample.zip",
        "RequestID": str(uuid.uuid5(_SPACE, "request")),
        "SubmittedAt": "2026-01-01T12:05:00.000000000Z",
        "Tags": ["north", "line-4"],
        "Recordings": recordings,
    }
    return copy.deepcopy(event)


def _recording(name: str, device: str) -> Dict[str, Any]:
    streams: List[Dict[str, Any]] = [
        {
            "Uuid": str(uuid.uuid5(_SPACE, name + channel)),
            "Collection": "north/" + device.replace(" ", "_").lower(),
            "Name": channel,
            "Unit": unit,
            "Phase": phase,
            "Kind": kind,
            "PS": side,
            "ToPrimary": factor,
            "SkewUs": 0.0,
        }
        for channel, unit, phase, kind, side, factor in _CHANNELS
    ]
    return {
        "Name": name,
        "Station": "North",
        "Device": device,
        "Revision": 2013,
        "LineFrequencyHz": 60.0,
        "SampleRates": [{"RateHz": _RATE_HZ, "EndSample": _SAMPLES}],
        "StartNs": _START_NS,
        "TriggerNs": _START_NS + 100000000,
        "UtcOffsetSource": "time_code",
        "UtcOffset": "+00:00",
        "TimeQuality": "0",
        "Hdr": None,
        "Inf": None,
        "MissingSamples": 0,
        "Streams": streams,
    }


def _data_set(recording: Dict[str, Any]) -> Dict[str, Any]:
    streams = [
        {
            "Uuid": stream["Uuid"],
            "StartNs": _START_NS,
            "EndNs": instant(_SAMPLES - 1),
            "ProcessedAtNs": _START_NS + 300000000000,
        }
        for stream in recording["Streams"]
    ]
    return {"Name": recording["Name"], "Success": True, "Error": "", "Streams": streams}


def instant(number: int) -> int:
    """When a sample was taken, ns since the epoch."""
    return _START_NS + round(number * 1e9 / _RATE_HZ)


def samples(stream: Dict[str, Any]) -> List[Any]:
    """[(ns, value), ...] of one of the sample's streams, an entry of Recordings: a fault on phase A from 100 to 180 ms."""
    shift = {"A": 0.0, "B": -2 * math.pi / 3, "C": 2 * math.pi / 3}.get(stream["Phase"], 0.0)
    found = []
    for number in range(_SAMPLES):
        seconds = number / _RATE_HZ
        faulted = 0.1 <= seconds < 0.18
        if stream["Kind"] == "status":
            value = 1.0 if 0.115 <= seconds < 0.2 else 0.0
        else:
            peak = 2.5 if stream["Unit"] == "A" else 187.8
            if faulted and stream["Phase"] == "A":
                peak = peak * (12.0 if stream["Unit"] == "A" else 0.35)
            value = peak * math.sin(2 * math.pi * 60.0 * seconds + shift)
        found.append((instant(number), value))
    return found
