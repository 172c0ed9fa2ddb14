"""An event of any hook: what the road needs to know of it, and the arguments that its handlers get."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from schemas.contracts import hook_names
from schemas.encoding import Headers, decode
from schemas.errors import InvalidMessage

RUN_NAMESPACE = uuid.UUID("6f0c5d0a-93c1-5b0e-8f57-6d1f2f7f2a41")
_RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)")


@dataclass(frozen=True)
class Event:
    """One event.

    hook: its name; request_id: canonical text of the UUID that, with the hook, identifies it; tags: sorted, each once;
    subject: the archive's name, for people; submitted_at: RFC 3339, digits as sent; arguments: all fields, by name, as JSON has them.
    trace: the W3C traceparent under which it is dispatched, '' for none.
    """

    hook: str
    request_id: str
    tags: tuple[str, ...]
    subject: str
    submitted_at: str
    arguments: Mapping[str, Any]
    trace: str = ""

    def body(self) -> bytes:
        """The arguments as JSON in UTF-8: the form in which the ledger keeps them and a sandbox gets them."""
        return self._body

    @cached_property
    def _body(self) -> bytes:
        return json.dumps(self.arguments, ensure_ascii=False, separators=(",", ":")).encode()


def read_event(hook: str, value: bytes | None, headers: Headers = ()) -> Event:
    """The event that a message of the hook's topic carries.

    Raises InvalidMessage naming the field that is wrong.
    """
    if hook not in hook_names():
        raise InvalidMessage(f"no hook is called {hook!r}; there are: {', '.join(hook_names())}", value or b"")
    plain = decode(hook, value, headers)
    try:
        return event_from(hook, plain)
    except ValueError as error:
        raise InvalidMessage(f"{hook}: {error}", value or b"") from error


def event_from(hook: str, plain: Mapping[str, Any]) -> Event:
    """The event that a mapping by the hook's contract describes; raises ValueError naming the field that is wrong."""
    try:
        request_id = str(uuid.UUID(plain["RequestID"]))
    except ValueError:
        raise ValueError(f"RequestID: should be a UUID as text, is {plain['RequestID']!r}") from None
    submitted_at = plain["SubmittedAt"]
    if not _RFC3339_UTC.fullmatch(submitted_at) or not _is_moment(submitted_at[:19]):
        raise ValueError(f"SubmittedAt: should be RFC 3339 in UTC (2020-10-29T21:58:15.09246084Z), is {submitted_at!r}")
    return Event(hook, request_id, tuple(sorted(set(plain["Tags"]))), plain.get("File", ""), submitted_at, dict(plain))


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text.replace(":60", ":59"))  # RFC 3339 section 5.6 has leap seconds
    except ValueError:
        return False
    return True


def run_id(hook: str, request_id: str, handler_id: int, replay_id: str = "") -> str:
    """The run's id: UUIDv5 of (hook, RequestID, handler id, replay id or empty), so a redelivery makes the same run."""
    # RFC 9562, 5.5; spelled out because uuid.uuid5 and str take three times as long, and a storm makes thousands a second
    name = json.dumps([hook, request_id, handler_id, replay_id]).encode()
    digest = hashlib.sha1(RUN_NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
