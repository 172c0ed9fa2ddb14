"""The supervisor, with real small processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack.stack import answers_ok
from devstack.supervisor import Process, StartFailed, Supervisor

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        os.sched_yield()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_of(state: Path, name: str) -> int:
    return int((state / "pids" / f"{name}.pid").read_text())


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path)
    yield made
    made.stop()


def test_a_process_that_is_killed_is_started_again(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.add(Process("sleeper", SLEEPER, dict(os.environ)))
    supervisor.start(lambda text: None)
    first = pid_of(tmp_path, "sleeper")

    os.kill(first, signal.SIGKILL)

    wait_until(lambda: pid_of(tmp_path, "sleeper") != first, "a new process")
    assert alive(pid_of(tmp_path, "sleeper"))


def test_a_process_taken_down_stays_down_until_it_is_brought_back(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.add(Process("sleeper", SLEEPER, dict(os.environ)))
    supervisor.add(Process("other", SLEEPER, dict(os.environ)))
    supervisor.start(lambda text: None)
    first = pid_of(tmp_path, "sleeper")

    supervisor.take_down("sleeper")
    wait_until(lambda: not alive(first), "it to end")
    other = pid_of(tmp_path, "other")
    os.kill(other, signal.SIGKILL)
    wait_until(lambda: pid_of(tmp_path, "other") != other, "the supervisor to have looked at both")
    assert pid_of(tmp_path, "sleeper") == first

    supervisor.bring_back("sleeper")
    wait_until(lambda: alive(pid_of(tmp_path, "sleeper")), "it to be back")


HANGS_ONCE = """
import sys, threading, time
from pathlib import Path
from schemas.topics import Topic
from stream import loop
from stream.memory import MemoryBroker
from telemetry.health import Health
from telemetry.settings import TelemetrySettings, from_environment

marker = Path(sys.argv[1])
broker = MemoryBroker()
broker.admin().ensure_topics([Topic("t", "key", 1, 3_600_000)], 1, 1 << 20)
broker.producer().send("t", b"x")
health = Health("hangs")
from_environment(TelemetrySettings).serve(health)


class Step:
    def handle(self, batch):
        if not marker.exists():
            marker.touch()
            time.sleep(600)  # a loop that hangs
        return []


loop.run(broker.consumer(["t"], "g"), Step(), dead_letters=broker.producer(), group="g", health=health, stop=threading.Event())
"""


def test_a_loop_that_hangs_is_seen_by_the_age_of_its_last_turn_and_started_again(tmp_path: Path) -> None:
    page = tmp_path / "page"
    marker = tmp_path / "hung"

    def lives() -> bool:
        return not page.exists() or answers_ok(f"http://{page.read_text().strip()}/healthz")

    root = Path(__file__).resolve().parents[2]
    env = {
        **os.environ, "PYTHONPATH": str(root), "EVENTPROC_METRICS_FILE": str(page), "EVENTPROC_MAX_TURN_AGE_S": "1",
    }  # fmt: skip
    supervisor = Supervisor(tmp_path, probe_s=0.5)
    supervisor.add(
        Process("hangs", [sys.executable, "-c", HANGS_ONCE, str(marker)], env, ready=page.exists, alive=lives)
    )
    supervisor.start(lambda text: None)
    try:
        first = pid_of(tmp_path, "hangs")
        wait_until(marker.exists, "the loop to hang")

        wait_until(lambda: pid_of(tmp_path, "hangs") != first, "the supervisor to end it")
        assert "--- not alive; killed" in (tmp_path / "logs" / "hangs.log").read_text()
        wait_until(lambda: alive(pid_of(tmp_path, "hangs")) and lives(), "the new one to turn")
    finally:
        supervisor.stop()


def test_stop_ends_all_and_takes_the_pid_files_away(tmp_path: Path, supervisor: Supervisor) -> None:
    for name in ("one", "two"):
        supervisor.add(Process(name, SLEEPER, dict(os.environ)))
    supervisor.start(lambda text: None)
    pids = [pid_of(tmp_path, name) for name in ("one", "two")]

    supervisor.stop()

    assert not any(alive(pid) for pid in pids)
    assert list((tmp_path / "pids").iterdir()) == []


def test_one_that_ignores_sigterm_is_killed_after_the_grace(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devstack.supervisor.GRACE_S", 0.1)
    log = tmp_path / "logs" / "stubborn.log"
    supervisor.add(Process("stubborn", STUBBORN, dict(os.environ), ready=lambda: "up" in log.read_text()))
    supervisor.start(lambda text: None)
    pid = pid_of(tmp_path, "stubborn")

    supervisor.stop()

    assert not alive(pid)


def test_each_starts_when_the_one_before_is_ready(tmp_path: Path, supervisor: Supervisor) -> None:
    told: list[str] = []
    marker = tmp_path / "marker"
    make = [sys.executable, "-c", f"import time; open({str(marker)!r}, 'w').close(); time.sleep(600)"]
    check = [sys.executable, "-c", f"import os, time; assert os.path.exists({str(marker)!r}); time.sleep(600)"]
    supervisor.add(Process("first", make, dict(os.environ), ready=marker.exists))
    supervisor.add(Process("second", check, dict(os.environ)))

    supervisor.start(told.append)

    assert [text.split()[0] for text in told] == ["first", "second"]


def test_a_process_that_ends_while_starting_is_named_with_the_end_of_its_log(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    broken = [sys.executable, "-c", "import sys; print('no such setting'); sys.exit(3)"]
    supervisor.add(Process("good", SLEEPER, dict(os.environ)))
    supervisor.add(Process("broken", broken, dict(os.environ), ready=lambda: False))

    with pytest.raises(StartFailed, match=r"(?s)broken ended with exit code 3.*no such setting"):
        supervisor.start(lambda text: None)

    assert list((tmp_path / "pids").iterdir()) == []


def test_the_standard_input_of_a_process_stays_open_as_long_as_the_supervisor_lives(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    reader = [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(4)"]
    supervisor.add(Process("reader", reader, dict(os.environ)))
    supervisor.add(Process("other", SLEEPER, dict(os.environ)))
    supervisor.start(lambda text: None)
    first = pid_of(tmp_path, "reader")
    os.kill(pid_of(tmp_path, "other"), signal.SIGKILL)  # and whatever becomes of its neighbours
    wait_until(
        lambda: "ended with -9" in (tmp_path / "logs" / "other.log").read_text(), "the other to be started again"
    )

    assert pid_of(tmp_path, "reader") == first and alive(first)
    assert (tmp_path / "logs" / "reader.log").read_text() == ""


def test_kill_9_of_the_supervisor_leaves_nobody_behind(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from devstack.supervisor import Process, Supervisor\n"
        "s = Supervisor(Path(sys.argv[1]))\n"
        "s.add(Process('sleeper', [sys.executable, '-c', 'import time; time.sleep(600)'], dict(os.environ)))\n"
        "s.start(lambda text: None)\n"
        "print('up', flush=True)\n"
        "s.run_forever()\n"
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    child = pid_of(tmp_path, "sleeper")

    parent.kill()
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not alive(child), "the child to end")
