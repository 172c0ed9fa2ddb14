"""The event -> one message on its topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctingress.describe import HOOK
from schemas.encoding import cloud_event_headers, encode
from schemas.errors import InvalidMessage
from stream.broker import Producer
from telemetry import traces

SOURCE = "/ctingress"
_MARGIN = 4096


def check_size(event: Mapping[str, Any], largest: int) -> None:
    """Raises InvalidMessage when the event's message could be larger than largest bytes (topic and clients take no more)."""
    size = len(encode(HOOK, event)) + 10 * sum(len(d["Streams"] or ()) for d in event["DataSets"]) + _MARGIN
    if size > largest:
        raise InvalidMessage(
            f"the event would have {size} bytes, more than the {largest} that fit into a message: the archive has too many "
            "channels; split it, or raise EVENTPROC_MAX_MESSAGE_BYTES everywhere"
        )


def announce(producer: Producer, event: Mapping[str, Any], timeout_s: float, trace: str = "") -> None:
    """Sends the event and blocks until the broker has acknowledged it; raises TryLater when it does not within timeout_s.

    trace: the W3C traceparent that what follows from it belongs to, '' for none.
    """
    request_id = str(event["RequestID"])
    headers = cloud_event_headers(HOOK, request_id, SOURCE, str(event["SubmittedAt"]))
    headers += traces.as_header(trace)
    producer.send(HOOK, encode(HOOK, event), key=request_id.encode(), headers=headers)
    producer.flush(timeout_s)
