"""What becomes of an upload whatever is away, dies or is full."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from ctingress.accept import Desk
from ctingress.receive import make_app
from ctingress.serve import forget
from ctingress.work import Worker
from ledger import Ledger
from schemas.errors import TryLater
from stream.memory import MemoryBroker
from tests.btrdb_server import Running
from tests.migrated import migrated

from .uploads import HOOK, LIMITS, MIB, a_worker, due, events, posted


def test_what_is_away_is_waited_for_and_the_upload_is_not_lost(
    http: TestClient, ledger: Ledger, desk: Desk, broker: MemoryBroker, server: Running, archive: bytes
) -> None:
    where = posted(http, archive).headers["location"]

    def away(key: str) -> Any:
        raise ConnectionError("nobody listens")

    gone = Worker(ledger, desk.keep, broker.producer(), away, limits=LIMITS, largest_message=8 * MIB)
    assert gone.turn()
    state = http.get(where).json()
    assert (state["State"], state["Error"]) == ("waiting", "BTrDB: nobody listens")
    due(ledger)
    assert a_worker(ledger, desk, broker, server).turn()
    assert http.get(where).json()["State"] == "published"
    assert len(events(broker)) == 1


def test_what_stays_away_is_given_up_with_the_reason(
    http: TestClient, ledger: Ledger, desk: Desk, broker: MemoryBroker, archive: bytes
) -> None:
    where = posted(http, archive).headers["location"]

    def away(key: str) -> Any:
        raise ConnectionError("nobody listens")

    worker = Worker(ledger, desk.keep, broker.producer(), away, limits=LIMITS, largest_message=8 * MIB, give_up_s=0.0)
    due(ledger)
    worker.turn()
    state = http.get(where).json()
    assert state["State"] == "failed"
    assert state["Error"].startswith("given up after 0 h: BTrDB: nobody listens")


def test_an_event_that_was_published_before_the_process_died_is_not_published_again(
    http: TestClient, worker: Worker, broker: MemoryBroker, ledger: Ledger, archive: bytes
) -> None:
    request_id = posted(http, archive).json()["RequestID"]
    with ledger.write() as session:
        session.execute(
            text(
                "INSERT INTO event (hook, request_id, subject, submitted_at, tags, body, matches, received_at_ms)"
                " VALUES (:hook, :id, '', '', '[]', '{}', '[]', 1)"
            ),
            {"hook": HOOK, "id": request_id},
        )
    assert worker.turn()
    assert http.get(f"/v1/archives/{request_id}").json()["State"] == "published"
    assert events(broker) == []


def test_an_upload_is_refused_for_a_while_when_the_ledger_is_away_and_leaves_nothing(
    http: TestClient, desk: Desk, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ledger.engine.BUSY_S", 0.2)
    with desk.ledger.engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        blocker = desk.ledger.engine.raw_connection()
        blocker.cursor().execute("BEGIN IMMEDIATE")
        answer = posted(http, archive)
        blocker.cursor().execute("ROLLBACK")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert list((tmp_path / "archives").iterdir()) == []


class LosesAnswers(Ledger):
    """A ledger that commits, and whose answer to the first few commits is lost on the way."""

    to_lose = 0

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        if self.to_lose:
            self.to_lose -= 1
            raise TryLater("ledger: server closed the connection unexpectedly")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "upload-11"}])
@pytest.mark.parametrize("lost", [1, 2])
def test_an_upload_whose_booking_was_not_answered_keeps_its_bytes(
    desk: Desk, keys: dict[str, str], archive: bytes, tmp_path: Path, lost: int, key: dict[str, str]
) -> None:
    ledger = LosesAnswers.open(migrated(tmp_path / "loses.db"), [Fernet.generate_key().decode()])
    assert isinstance(ledger, LosesAnswers)
    app = make_app(dataclasses.replace(desk, ledger=ledger))
    http = TestClient(app, headers={"Authorization": f"Bearer {keys['alice']}"})
    ledger.to_lose = lost

    answer = http.post("/v1/archives", content=archive, headers=key)

    assert answer.status_code == (202 if lost == 1 else 503)
    with ledger.read() as session:
        booked = list(session.scalars(text("SELECT stored FROM archive")))
    assert [path.name for path in (tmp_path / "archives").iterdir()] == booked
    assert len(booked) == 1
    ledger.close()


def test_an_upload_that_finds_no_room_on_the_disk_is_refused_for_a_while(
    http: TestClient, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    answer = posted(http, archive)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


def test_an_archive_that_ended_long_ago_goes_with_its_bytes(
    http: TestClient, worker: Worker, ledger: Ledger, desk: Desk, archive: bytes, keys: dict[str, str], tmp_path: Path
) -> None:
    failed = http.post("/v1/archives", content=archive, headers={"Authorization": f"Bearer {keys['bob']}"})
    assert worker.turn()
    waiting = posted(http, archive)
    with ledger.write() as session:
        session.execute(text("UPDATE archive SET created_at_ms = 0"))
        session.execute(text("UPDATE archive SET ended_at_ms = 0 WHERE ended_at_ms IS NOT NULL"))

    assert (forget(ledger, desk.keep, 86_400), forget(ledger, desk.keep, 86_400)) == (1, 0)

    admin = {"Authorization": f"Bearer {keys['admin']}"}
    assert http.get(failed.headers["location"], headers=admin).status_code == 404
    assert http.get(waiting.headers["location"]).json()["State"] == "waiting"
    assert [path.name for path in (tmp_path / "archives").iterdir()] == [f"{waiting.json()['RequestID']}.zip"]
