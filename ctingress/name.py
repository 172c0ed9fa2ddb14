"""A recording's streams get their names: collection, name and UUID, the same whenever the same recording comes in."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ctingress.recording import Channel, Config

STREAMS = uuid.UUID("0d0f5d52-7a0e-5a2c-9a4f-3d2f6c1b8e11")
"""Namespace of the streams' UUIDs (RFC 9562, version 5)."""
LONGEST = 256
_PART = 96


@dataclass(frozen=True)
class StreamName:
    """Where a channel's points go."""

    uuid: uuid.UUID
    collection: str
    name: str


def stream_names(config: Config, prefix: str = "") -> tuple[StreamName, ...]:
    """One per channel, in the config's order; prefix: put before the collection, for recorders with placeholder names."""
    where = collection(config, prefix)
    return tuple(StreamName(stream_uuid(where, name), where, name) for name in unique_names(config.channels))


def collection(config: Config, prefix: str = "") -> str:
    """comtrade/<station>/<device>/<nominal rate>Hz, at most 256 characters; a / within a name becomes %2F, a % becomes %25."""
    rate = "irregular" if not config.rates or Decimal(config.rates[0].hz) == 0 else f"{_plain(config.rates[0].hz)}Hz"
    parts = [*_prefix_parts(prefix), "comtrade", _escaped(config.station), _escaped(config.device), rate]
    whole = "/".join(parts)
    if len(whole) <= LONGEST:
        return whole
    short = "/".join(shortened(part, _PART) for part in parts)
    return short if len(short) <= LONGEST else shortened(short, LONGEST)


def unique_names(channels: Sequence[Channel]) -> tuple[str, ...]:
    """The channels' names; one that repeats gets its channel's index appended (and its kind, and a number, as far as needed)."""
    plain = [channel.name.strip() or f"{channel.kind} {channel.index}" for channel in channels]
    seen = Counter(plain)
    taken = {name for name in plain if seen[name] == 1}
    again: Counter[str] = Counter()
    names = []
    for channel, name in zip(channels, plain, strict=True):
        chosen = name
        if seen[name] > 1:
            kind = f"{name} {channel.kind} {channel.index}"
            chosen = next((one for one in (f"{name} {channel.index}", kind) if one not in taken), f"{kind} of {name}")
            while chosen in taken:
                again[kind] += 1
                chosen = f"{kind} of {name} ({again[kind] + 1})"
        taken.add(chosen)
        names.append(shortened(chosen, LONGEST))
    return tuple(names)


def stream_uuid(where: str, name: str) -> uuid.UUID:
    """UUIDv5 of (collection, name)."""
    return uuid.uuid5(STREAMS, json.dumps([where, name], ensure_ascii=False))


def _plain(number: str) -> str:
    text = format(Decimal(number).normalize(), "f")
    return text if text != "-0" else "0"


def _prefix_parts(prefix: str) -> list[str]:
    return [_escaped(part) for part in prefix.split("/") if part.strip()]


def _escaped(text: str) -> str:
    shown = "".join(" " if ord(sign) < 32 or ord(sign) == 127 else sign for sign in text).strip()
    return shown.replace("%", "%25").replace("/", "%2F") or "unnamed"


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and a digest of the whole: at most longest characters, and still its own."""
    if len(text) <= longest:
        return text
    mark = "~" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return text[: longest - len(mark)] + mark
