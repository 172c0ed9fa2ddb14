"""What the store keeps over a kill -9 of its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from devstack.btrdb import streams
from devstack.btrdb.points import Points
from devstack.btrdb.refusals import Refusal
from devstack.btrdb.store import Store

CODE = """
import sys, uuid
from pathlib import Path
import numpy as np
from devstack.btrdb import streams
from devstack.btrdb.points import NEVER, Points
from devstack.btrdb.store import Store
store = Store(Path(sys.argv[1]))
streams.create(store, sys.argv[2], "c", {"name": "n"}, {})
for k in range(1000000):
    store.insert(sys.argv[2], Points(np.array([k]), np.array([float(k)])), NEVER)
    print(k, flush=True)
"""
UUID = "5b7ac5f9-3a2a-4a7c-9c2f-0d3f2f2f7a11"


def test_an_insert_that_was_answered_survives_kill_9(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path), UUID], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    answered = [int(child.stdout.readline()) for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    store = Store(tmp_path)
    view, version = store.at(UUID)
    assert view.between(0, 1000000).times.tolist()[:50] == answered
    assert version == 10 + len(view)
    assert streams.describe(store, UUID).tags["name"] == "n"
    store.close()


def test_an_insert_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    streams.create(store, UUID, "c", {"name": "n"}, {})
    before = store.insert(UUID, Points(np.array([1]), np.array([1.0])), 0)
    with pytest.raises(Refusal, match="value inf at point 1"):
        store.insert(UUID, Points(np.array([2, 3]), np.array([1.0, np.inf])), 0)
    assert store.at(UUID)[1] == before
    store.close()
