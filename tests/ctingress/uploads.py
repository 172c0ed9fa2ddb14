"""What the tests of uploads share: a desk, a worker, a client of alice's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import btrdb
import httpx
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from callers import ApiKeys
from ctingress.accept import Desk
from ctingress.open import Limits
from ctingress.receive import make_app
from ctingress.work import Worker
from devstack.keys import make_keys
from examples.make_comtrade import fault_archive
from ledger import Ledger
from objectstore import ObjectStore
from schemas.encoding import decode
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.btrdb_server import Running

HOOK = "ctingress.on_complete"
LIMITS = Limits(1000, 1 << 28, 200)
MIB = 1 << 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "fault.zip"
    fault_archive(path)
    return path.read_bytes()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics(("py3.11",), 1), 1, 8 * MIB)
    return broker


@pytest.fixture
def keys(tmp_path: Path, server: Running) -> dict[str, str]:
    """alice's key is BTrDB's, too; bob's is not."""
    made = make_keys({"bob": (), "admin": ("admin",)}, tmp_path / "keys.json")
    entries = json.loads((tmp_path / "keys.json").read_text())["keys"]
    entries.append({"sha256": hashlib.sha256(server.key.encode()).hexdigest(), "user": "alice", "roles": []})
    (tmp_path / "keys.json").write_text(json.dumps({"keys": entries}))
    return {**made, "alice": server.key}


@pytest.fixture
def desk(tmp_path: Path, ledger: Ledger, keys: dict[str, str]) -> Desk:
    keep = ObjectStore(f"file://{tmp_path / 'archives'}")
    return Desk(ledger, ApiKeys(tmp_path / "keys.json"), keep, LIMITS, max_upload=4 * MIB)


@pytest.fixture
def worker(ledger: Ledger, desk: Desk, broker: MemoryBroker, server: Running) -> Worker:
    return a_worker(ledger, desk, broker, server)


def a_worker(ledger: Ledger, desk: Desk, broker: MemoryBroker, server: Running, **changed: Any) -> Worker:
    def connect(key: str) -> Any:
        return btrdb.connect(server.endpoint, apikey=key)

    return Worker(ledger, desk.keep, broker.producer(), connect, limits=LIMITS, largest_message=8 * MIB, **changed)


@pytest.fixture
def http(desk: Desk, keys: dict[str, str]) -> TestClient:
    """alice's client."""
    return TestClient(make_app(desk), headers={"Authorization": f"Bearer {keys['alice']}"})


def posted(http: TestClient, body: bytes, **query: str) -> httpx.Response:
    headers = {"Content-Type": "application/zip"}
    answer: httpx.Response = http.post("/v1/archives", params=query, content=body, headers=headers)
    return answer


def events(broker: MemoryBroker) -> list[dict[str, Any]]:
    consumer = broker.consumer([HOOK], "test")
    found = consumer.poll(0.2, 100)
    consumer.close()
    return [decode(HOOK, message.value, message.headers) for message in found]


def due(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE archive SET not_before_ms = 0, lease_until_ms = 0"))
