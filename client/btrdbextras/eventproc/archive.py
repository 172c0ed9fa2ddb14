"""A COMTRADE archive on the disk -> the event that the platform would send of it, and its samples, to try a function on.

Reads what IEEE C37.111 (1991, 1999, 2013) says of CFG and DAT files in a zip. What recorders deviate in the platform's own reader
knows; an archive that this one is not sure of is refused, so that nothing is seen here that would be seen otherwise there.
"""

import datetime
import json
import math
import os
import posixpath
import re
import struct
import uuid
import zipfile
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

ENDINGS = (".zip", ".zic")
_STREAMS = uuid.UUID(
    "0d0f5d52-7a0e-5a2c-9a4f-3d2f6c1b8e11"
)  # the platform's namespace of them: they have these UUIDs there
_NS = 1000000000
_CODES = {"BINARY": "h", "BINARY32": "i", "FLOAT32": "f"}
_LEAST_FLOAT = struct.unpack("<f", b"\xff\xff\x7f\xff")[0]
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?")
_DAY = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_OFFSET = re.compile(r"([+-]?)([0-9]{1,2})(?:h([0-9]{2}))?")


class Unsure(ValueError):
    """The file is not of the plain form."""


class Held(NamedTuple):
    """A stream of an archive. described: its entry of Recordings; points: [(ns, value), ...], without those that are missing."""

    described: Dict[str, Any]
    points: List[Tuple[int, float]]


class _Channel(NamedTuple):
    """missing: what stands for a missing value in an ASCII file, beside the empty field."""

    fields: Dict[str, Any]
    a: float
    b: float
    missing: Optional[float]


class _Config(NamedTuple):
    about: Dict[str, Any]
    channels: List[_Channel]
    rates: List[Tuple[Fraction, int]]
    encoding: str


def read(path: str) -> Tuple[Dict[str, Any], List[Held], List[str]]:
    """The event, its streams, and what is to be known of it. Raises ValueError naming the file that only the platform reads."""
    try:
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist() if not name.endswith("/")}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ValueError("%r cannot be read as a zip archive: %s" % (path, error)) from error
    pairs = _pairs(members)
    if not pairs:
        raise ValueError("%r holds no COMTRADE recording: no .cfg beside a .dat" % path)
    data_sets, recordings, held, notes = [], [], [], []  # type: Tuple[List[Any], List[Any], List[Held], List[str]]
    for name, parts in pairs:
        try:
            recording, streams, data_set = _recording("/" + name, parts)
        except (ValueError, LookupError, ArithmeticError, StopIteration) as error:
            raise ValueError(
                "%s in %r is not of the form that is read here (%s); the platform's own reader takes more forms: ingest it "
                "(`eventproc upload`)" % (name, path, error)
            ) from error
        data_sets.append(data_set)
        held += streams
        if recording:
            recordings.append(recording)
            if recording["UtcOffsetSource"] == "assumed":
                notes.append("%s does not say its offset from UTC: here it is taken as UTC" % name)
    event = {
        "DataSets": data_sets,
        "File": os.path.basename(path),
        "RequestID": str(uuid.uuid4()),
        "SubmittedAt": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z"),
        "Tags": [],
        "Recordings": recordings,
    }
    return event, held, notes


def _pairs(members: Dict[str, bytes]) -> List[Tuple[str, Dict[str, bytes]]]:
    """(name of the CFG, files by kind) of each recording, in the archive's order."""
    found = {}  # type: Dict[str, Dict[str, Tuple[str, bytes]]]
    for name, content in members.items():
        stem, ending = posixpath.splitext(name)
        kind = ending[1:].lower()
        if kind == "cff":
            raise ValueError("%s: a CFF file is read by the platform alone: ingest it (`eventproc upload`)" % name)
        if kind in ("cfg", "dat", "hdr", "inf"):
            found.setdefault(stem.lower(), {})[kind] = (name, content)
    return [
        (parts["cfg"][0], {kind: content for kind, (_, content) in parts.items()})
        for parts in found.values()
        if "cfg" in parts
    ]


def _recording(name: str, parts: Dict[str, bytes]) -> Tuple[Optional[Dict[str, Any]], List[Held], Dict[str, Any]]:
    failed = {"Name": name, "Success": False, "Error": "there is no DAT file beside this CFG file", "Streams": None}
    if "dat" not in parts:
        return None, [], failed
    config = _config(parts["cfg"].decode("utf-8-sig"))
    if config.about["UtcOffsetSource"] == "assumed" and "," in posixpath.basename(name):
        raise Unsure("its name may tell its offset from UTC")
    rows = (_ascii if config.encoding == "ASCII" else _binary)(parts["dat"], config)
    told = config.rates[-1][1]
    if len(rows) < told:
        text = "the DAT file holds %d samples; by the CFG file there should be %d: it is cut off" % (len(rows), told)
        return None, [], dict(failed, Error=text)
    times = [config.about["StartNs"] + offset for offset in _offsets(config, len(rows))]
    held = []
    for number, channel in enumerate(config.channels):
        points = []
        for time, row in zip(times, rows):  # noqa: B905 - not before Python 3.10
            value = row[number]
            if value is not None:
                value = value * channel.a + channel.b if channel.fields["Kind"] == "analog" else float(value)
            if value is not None and math.isfinite(value):
                points.append((time, value))
        held.append(Held(channel.fields, points))
    missing = sum(len(rows) - len(one.points) for one in held)
    texts = {
        kind.title(): parts[kind].decode("utf-8-sig") or None if kind in parts else None for kind in ("hdr", "inf")
    }
    recording = dict(config.about, Name=name, MissingSamples=missing, Streams=[one.described for one in held], **texts)
    streams = [
        {"Uuid": one.described["Uuid"], "StartNs": times[0], "EndNs": times[-1], "ProcessedAtNs": times[-1]}
        for one in held
    ]
    return recording, held, {"Name": name, "Success": True, "Error": "", "Streams": streams}


def _config(text: str) -> _Config:
    lines = [[field.strip(" \t\0") for field in line.split(",")] for line in text.rstrip(" \t\r\n\0\x1a").splitlines()]
    if any("\0" in field for line in lines for field in line):
        raise Unsure("a NUL within a field")
    at = iter(lines + [[""]] * 4)
    head = next(at)
    if len(head) > 3:
        raise Unsure("a first line of %d fields" % len(head))
    station, device = head[:2]
    revision = {"1991": 1991, "1999": 1999, "2001": 1999, "2013": 2013}[head[2]] if len(head) == 3 else 1991
    total, analogs, statuses = next(at)
    if not (analogs.upper().endswith("A") and statuses.upper().endswith("D")):
        raise Unsure("numbers of channels %s,%s" % (analogs, statuses))
    channels = [_analog(next(at), revision) for _ in range(int(analogs[:-1]))]
    channels += [_status(next(at)) for _ in range(int(statuses[:-1]))]
    if not channels or len(channels) != int(total):
        raise Unsure("%d channels, of %s" % (len(channels), total))
    (frequency,) = next(at)
    (count,) = next(at)
    told = [next(at) for _ in range(int(count))]
    rates = [(Fraction(hz), int(end)) for hz, end in told]
    if not all(_NUMBER.fullmatch(text or "0") for text in [frequency, *(one for rate in told for one in rate)]):
        raise Unsure("the frequency or a sample rate")
    ends = [end for _, end in rates]
    if not rates or min(hz for hz, _ in rates) <= 0:
        raise Unsure("no sample rate: its samples are placed by their time stamps")
    if ends != sorted(set(ends)) or ends[0] < 1 or max(hz for hz, _ in rates) > 10**9:
        raise Unsure("the sample rates %s" % told)
    start, trigger = (_instant(next(at), revision) for _ in range(2))
    encoding = next(at)[0].upper()
    if encoding != "ASCII" and encoding not in _CODES:
        raise Unsure("file type %r" % encoding)
    multiplier = next(at)
    if any(multiplier[1:]) or not re.fullmatch(r"(?=.*[1-9])[0-9]*\.?[0-9]*|", multiplier[0]):
        raise Unsure("the time stamp multiplier %s" % ",".join(multiplier))
    codes, quality = (next(at), next(at)[0]) if revision == 2013 else ([""], "")
    if any(codes[2:]) or any(any(line) for line in at if revision != 2013):
        raise Unsure("what follows the time stamp multiplier")
    seconds, *_ = map(_offset, codes)
    shift = (seconds or 0) * _NS
    sign, minutes = "-" if (seconds or 0) < 0 else "+", abs(seconds or 0) // 60
    about = {
        "Station": station, "Device": device, "Revision": revision,
        "LineFrequencyHz": float(frequency) if frequency else None,
        "SampleRates": [{"RateHz": float(hz), "EndSample": end} for hz, end in rates],
        "StartNs": start - shift, "TriggerNs": trigger - shift,
        "UtcOffsetSource": "assumed" if seconds is None else "time_code",
        "UtcOffset": "%s%02d:%02d" % (sign, minutes // 60, minutes % 60),
        "TimeQuality": quality or None,
    }  # fmt: skip
    parts = ["comtrade", _escaped(station), _escaped(device), _plain(rates[0][0]) + "Hz"]
    return _Config(about, _named(channels, "/".join(parts)), rates, encoding)


def _analog(fields: List[str], revision: int) -> _Channel:
    if len(fields) not in (10, 13) or not all(_NUMBER.fullmatch(text or "0") for text in fields[5:12]):
        raise Unsure("the analog channel %s" % ",".join(fields))
    whole = len(fields) == 13
    primary, secondary = (float(fields[10]), float(fields[11])) if whole else (1.0, 1.0)
    side = fields[12].upper() if whole else ""
    if side not in ("", "P", "S"):
        raise Unsure("%r for primary or secondary" % side)
    kept = fields[9] and float(fields[9]) == 99998  # the limit of 1999: the recorder kept to its sentinel, too
    missing = 999999.0 if revision == 1991 else 99999.0 if revision == 1999 or kept else None
    return _Channel(
        {
            "Index": int(fields[0]), "Name": fields[1], "Unit": fields[4], "Phase": fields[2], "Kind": "analog", "PS": side,
            "ToPrimary": primary / secondary if side == "S" and secondary else 1.0,
            "SkewUs": float(fields[7]) if fields[7] else 0.0,
        },
        float(fields[5]),
        float(fields[6]),
        missing,
    )  # fmt: skip


def _status(fields: List[str]) -> _Channel:
    if len(fields) not in (3, 5) or fields[-1] not in ("", "0", "1"):
        raise Unsure("the status channel %s" % ",".join(fields))
    phase = fields[2] if len(fields) == 5 else ""
    return _Channel(
        {
            "Index": int(fields[0]), "Name": fields[1], "Unit": "", "Phase": phase, "Kind": "status", "PS": "",
            "ToPrimary": 1.0, "SkewUs": 0.0,
        },
        1.0,
        0.0,
        None,
    )  # fmt: skip


def _named(channels: List[_Channel], collection: str) -> List[_Channel]:
    """The same with the names, collection and UUIDs that their streams have on the platform."""
    plain = [one.fields["Name"] or "%s %d" % (one.fields["Kind"], one.fields["Index"]) for one in channels]
    if max(Counter(plain).values()) > 1 or max(map(len, plain)) > 256 or len(collection) > 256:
        raise Unsure("names that repeat or are very long")
    found = []
    for channel, name in zip(channels, plain):  # noqa: B905
        known = {key: value for key, value in channel.fields.items() if key != "Index"}
        key = json.dumps([collection, name], ensure_ascii=False)
        known.update(Uuid=str(uuid.uuid5(_STREAMS, key)), Collection=collection, Name=name)
        found.append(channel._replace(fields=known))
    return found


def _instant(fields: List[str], revision: int) -> int:
    """ns since 1970 of the recorder's own clock."""
    day, clock = _DAY.fullmatch(fields[0]), _CLOCK.fullmatch(fields[1])
    if day is None or clock is None or any(fields[2:]):
        raise Unsure("the instant %s" % ",".join(fields))
    first, second = int(day.group(1)), int(day.group(2))
    month, number = (first, second) if revision == 1991 else (second, first)
    days = datetime.date(int(day.group(3)), month, number).toordinal() - datetime.date(1970, 1, 1).toordinal()
    hours, minutes, seconds = (int(clock.group(index)) for index in (1, 2, 3))
    if hours > 23 or minutes > 59 or seconds > 59:
        raise Unsure("the time %s" % fields[1])
    return (days * 86400 + hours * 3600 + minutes * 60 + seconds) * _NS + int((clock.group(4) or "").ljust(9, "0"))


def _offset(code: str) -> Optional[int]:
    """Seconds east of UTC, as '-5h30' says; None for nothing that says it. Raises Unsure."""
    if code.lower() in ("", "x"):
        return None
    found = _OFFSET.fullmatch(code.lower())
    if found is None or int(found.group(2)) > 15 or int(found.group(3) or 0) > 59:
        raise Unsure("the time code %s" % code)
    return (-1 if found.group(1) == "-" else 1) * (int(found.group(2)) * 3600 + int(found.group(3) or 0) * 60)


def _offsets(config: _Config, count: int) -> List[int]:
    """ns from the start of each sample."""
    found = []  # type: List[int]
    start = 0
    for number, (hz, end) in enumerate(config.rates):
        here = (count if number == len(config.rates) - 1 else min(end, count)) - len(found)
        found += [start + k * _NS * hz.denominator // hz.numerator for k in range(here)]
        start += here * _NS * hz.denominator // hz.numerator
    return found


def _counts(config: _Config) -> Tuple[int, int]:
    analogs = sum(one.fields["Kind"] == "analog" for one in config.channels)
    return analogs, len(config.channels) - analogs


def _binary(data: bytes, config: _Config) -> List[List[Any]]:
    analogs, statuses = _counts(config)
    row = struct.Struct("<II%d%s%dH" % (analogs, _CODES[config.encoding], (statuses + 15) // 16))
    if len(data) % row.size:
        raise Unsure("%d bytes are no whole number of samples of %d bytes" % (len(data), row.size))
    none = {
        "BINARY": -1 if config.about["Revision"] == 1991 else -32768,
        "BINARY32": -(1 << 31),
        "FLOAT32": _LEAST_FLOAT,
    }
    missing = none[config.encoding]
    found = []
    for fields in row.iter_unpack(data):
        values = [None if one == missing else one for one in fields[2 : 2 + analogs]]
        words = fields[2 + analogs :]
        found.append(values + [words[index // 16] >> index % 16 & 1 for index in range(statuses)])
    return found


def _ascii(data: bytes, config: _Config) -> List[List[Any]]:
    analogs, statuses = _counts(config)
    found = []
    for line in data.decode("ascii").rstrip(" \t\r\n\0\x1a").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2 + analogs + statuses or "_" in line:
            raise Unsure("a DAT line of %d fields" % len(fields))
        if not all(text in ("", "0", "1") for text in fields[2 + analogs :]):
            raise Unsure("a status of neither 0 nor 1")
        values = [float(text) if text else None for text in fields][2:]
        channels = zip(values, config.channels)  # noqa: B905
        found.append([None if value is None or value == channel.missing else value for value, channel in channels])
    return found


def _escaped(text: str) -> str:
    shown = "".join(" " if ord(sign) < 32 or ord(sign) == 127 else sign for sign in text).strip()
    return shown.replace("%", "%25").replace("/", "%2F") or "unnamed"


def _plain(hz: Fraction) -> str:
    return format((Decimal(hz.numerator) / Decimal(hz.denominator)).normalize(), "f")
