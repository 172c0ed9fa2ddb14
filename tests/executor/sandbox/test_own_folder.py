"""A folder of a process alone: gone with it, also when it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from executor.sandbox.own_folder import OwnFolder

CODE = """
import sys
from pathlib import Path
from executor.sandbox.own_folder import OwnFolder
folder = OwnFolder("mine-", Path(sys.argv[1]))
(folder.path / "a").mkdir()
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_living_ones_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [Path(child.stdout.readline().strip()) for child in children if child.stdout]
    os.kill(children[0].pid, signal.SIGKILL)
    children[0].wait()
    (tmp_path / "mine-but-unlocked").mkdir()

    own = OwnFolder("mine-", tmp_path)

    assert not folders[0].exists()
    assert (folders[1] / "a").exists()
    assert (tmp_path / "mine-but-unlocked").exists()
    own.close()
    own.close()
    assert not own.path.exists()
    children[1].communicate()
