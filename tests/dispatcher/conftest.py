"""A ledger, a broker in memory, and events on its topic."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from ledger import Ledger
from ledger.handlers import HandlerView, NewHandler, register
from schemas.topics import topics
from stream.memory import MemoryBroker
from stream.messages import Message

HOOK = "ctingress.on_complete"
RUNTIME = "py3.11"


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics((RUNTIME,), 1), 1, 8 * 1024 * 1024)
    return broker


@pytest.fixture
def handler(ledger: Ledger) -> Callable[..., HandlerView]:
    """Registers a handler; what is not given is something sensible."""

    def make(name: str = "h", *tags: str, **changed: object) -> HandlerView:
        new = {
            "hook": HOOK, "name": name, "owner": "alice", "tags": tags, "notify_on_success": "ok@example.com",
            "notify_on_failure": "bad@example.com", "runtime": RUNTIME, "blob": b"pickle", **changed,
        }  # fmt: skip
        with ledger.write() as session:
            return register(session, NewHandler(**new), str(new["owner"]))  # type: ignore[arg-type]

    return make


def an_event(*tags: str, request_id: str = "", offset: int = 0, headers: tuple[tuple[str, bytes], ...] = ()) -> Message:
    """A message of the hook's topic, in JSON."""
    body = {
        "DataSets": [], "File": "a.zip", "RequestID": request_id or str(uuid.uuid4()),
        "SubmittedAt": "2020-10-29T21:58:15Z", "Tags": list(tags),
    }  # fmt: skip
    return Message(HOOK, 0, offset, None, json.dumps(body).encode(), headers, 0)
