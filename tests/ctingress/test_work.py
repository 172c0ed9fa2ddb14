"""An archive that kills whoever works on it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import text

from ctingress.open import Limits
from ctingress.work import MOST_LOST, Worker
from ledger import Ledger, archives
from ledger.archives import ArchiveView, NewArchive
from objectstore import ObjectStore
from stream.memory import MemoryBroker
from tests.migrated import migrated

ROOT = Path(__file__).resolve().parents[2]
LAPSE = "UPDATE archive SET lease_until_ms = 0, not_before_ms = 0"
KILLED = f"""
import os, signal, sys
from sqlalchemy import text
from ctingress.open import Limits
from ctingress.work import Worker
from ledger import Ledger
from objectstore import ObjectStore
from stream.memory import MemoryBroker

def connect(key):
    os.kill(os.getpid(), signal.SIGKILL)

url, seal, stored = sys.argv[1:]
for _ in range({MOST_LOST}):
    worker = os.fork()
    ledger = Ledger.open(url, [seal])
    if not worker:
        producer = MemoryBroker().producer()
        Worker(ledger, ObjectStore(stored), producer, connect, limits=Limits(), largest_message=1 << 20).turn()
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(worker, 0)[1]))
    with ledger.write() as session:
        session.execute(text("{LAPSE}"))
"""


def test_an_archive_in_hand_when_the_process_is_stopped_is_the_next_ones_at_once(
    tmp_path: Path, ledger: Ledger
) -> None:
    keep = ObjectStore(f"file://{tmp_path / 'kept'}")
    (tmp_path / "a.zip").write_bytes(b"any")
    keep.put(tmp_path / "a.zip", "a")
    new = NewArchive("r" * 36, "alice", "k", "a.zip", "a", 3, "d" * 64, ("/a.cfg",), (), "", None, "", None)
    with ledger.write() as session:
        archives.add(session, ledger, new)
    busy, over = threading.Event(), threading.Event()

    def connect(key: str) -> Any:
        busy.set()
        over.wait()
        raise ConnectionError("too late")

    worker = Worker(ledger, keep, MemoryBroker().producer(), connect, limits=Limits(), largest_message=1 << 20)
    thread = threading.Thread(target=worker.turn)
    thread.start()
    assert busy.wait(30)

    worker.leave()

    with ledger.write() as session:
        taken = archives.take(session, ledger, "the next one", 60.0)
    over.set()
    thread.join(30)
    assert taken is not None and (taken[0].tries, taken[0].lost) == (2, 0)
    with ledger.read() as session:
        after = archives.get(session, "r" * 36)
    assert after is not None and (after.state, after.tries) == ("working", 2)
    worker.leave()


def test_an_archive_that_kills_its_worker_again_and_again_is_ended_and_the_next_one_has_its_turn(
    tmp_path: Path,
) -> None:
    url, seal, stored = migrated(tmp_path / "ledger.db"), Fernet.generate_key().decode(), f"file://{tmp_path / 'kept'}"
    ledger, keep = Ledger.open(url, [seal]), ObjectStore(stored)
    (tmp_path / "a.zip").write_bytes(b"any")
    deadly, harmless = (f"00000000-0000-0000-0000-00000000000{n}" for n in range(2))
    for request_id in (deadly, harmless):
        keep.put(tmp_path / "a.zip", request_id)
        new = NewArchive(
            request_id, "alice", "k", "a.zip", request_id, 3, "d" * 64, ("/a.cfg",), (), "", None, "", None
        )
        with ledger.write() as session:
            archives.add(session, ledger, new)
            session.execute(text("UPDATE archive SET created_at_ms = created_at_ms - 1"))
    asked: list[str] = []

    def away(key: str) -> Any:
        asked.append(key)
        raise ConnectionError("nobody listens")

    def seen(request_id: str) -> ArchiveView:
        with ledger.read() as session:
            view = archives.get(session, request_id)
        assert view is not None
        return view

    worker = Worker(
        ledger, keep, MemoryBroker().producer(), away, limits=Limits(), largest_message=1 << 20, give_up_s=1e9
    )
    for _ in range(MOST_LOST + 1):  # put off, which is nobody's death
        assert worker.turn()
        with ledger.write() as session:
            session.execute(text(f"{LAPSE} WHERE request_id = '{deadly}'"))
    assert (seen(deadly).tries, seen(deadly).lost, seen(harmless).tries) == (MOST_LOST + 1, 0, 0)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, url, seal, stored], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert killed.stdout.split() == [str(int(signal.SIGKILL))] * MOST_LOST
    assert (seen(deadly).state, seen(harmless).tries) == ("working", 0)

    asked.clear()
    assert worker.turn()
    assert (seen(deadly).state, asked) == ("failed", [])
    assert "the process that worked on it ended in the middle, 5 times" in seen(deadly).error
    assert worker.turn()
    assert (seen(harmless).tries, asked) == (1, ["k"])
    ledger.close()
