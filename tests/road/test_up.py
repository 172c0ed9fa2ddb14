"""make up and make down: stacks side by side, the file to source, and that nothing outlives its supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack import kafka

pytestmark = [pytest.mark.road, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "kafka", "btrdb", "mail", "registry", "dispatcher", "executor", "notifier", "ctingress", "downloads", "supervisor",
}  # fmt: skip
NAMES = (
    "BTRDB_ENDPOINTS",
    "BTRDB_API_KEY",
    "BTRDB_CA_BUNDLE",
    "KAFKA_BOOTSTRAP_SERVERS",
    "EVENTPROC_MAIL_DIR",
    "EVENTPROC_METRICS",
    "EVENTPROC_API_KEYS",
)


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, f"waited 120 s for {what}"
        time.sleep(0.05)


def devstack(state: Path, verb: str) -> "subprocess.Popen[str]":
    """In a session of its own, as a shell starts it; what it prints goes to state's up.txt."""
    env = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    with (state.parent / f"{state.name}.txt").open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "devstack", "--state", str(state), verb],
            cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )  # fmt: skip


def family(pid: int) -> set[tuple[int, str]]:
    """The process and all that came of it, by pid and start time."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := stat_of(int(folder.name))):
            parents.setdefault(int(stat[1]), []).append((int(folder.name), stat[19]))
    found: set[tuple[int, str]] = set()
    todo = [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.add(child)
            todo.append(child[0])
    return found


def stat_of(pid: int) -> list[str]:
    """proc_pid_stat(5) from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(member: tuple[int, str]) -> bool:
    stat = stat_of(member[0])
    return bool(stat) and stat[0] != "Z" and stat[19] == member[1]


def supervisor_of(state: Path) -> int:
    return int((state / "pids" / "supervisor.pid").read_text())


def sourced(shell: str, state: Path) -> dict[str, str]:
    script = f". {state}/env; for name in {' '.join(NAMES)}; do eval echo $name=\\$$name; done"
    said = subprocess.run([shell, "-euc", script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return dict(line.split("=", 1) for line in said.stdout.splitlines())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    kafka.fetch(lambda text: None)
    yield tmp_path / "one"
    for folder in tmp_path.iterdir():
        if (folder / "pids" / "supervisor.pid").exists():
            devstack(folder, "down").wait(120)


def test_two_stacks_run_side_by_side_and_each_goes_down_alone(state: Path) -> None:
    other = state.with_name("two")
    ups = [devstack(state, "up"), devstack(other, "up")]
    assert [up.wait(300) for up in ups] == [0, 0], [f.read_text() for f in state.parent.glob("*.txt")]

    first, second = sourced("sh", state), sourced("bash", other)

    assert sourced("bash", state) == first
    assert all(first[name] for name in NAMES)
    for name in ("BTRDB_ENDPOINTS", "KAFKA_BOOTSTRAP_SERVERS", "EVENTPROC_MAIL_DIR"):
        assert first[name] != second[name]
    assert first["BTRDB_ENDPOINTS"].endswith(":4411") and second["BTRDB_ENDPOINTS"].endswith(":4411")
    keys = dict(pair.split("=") for pair in first["EVENTPROC_API_KEYS"].split())
    assert {"alice", "bob", "admin"} <= keys.keys() and keys["alice"] == first["BTRDB_API_KEY"]
    assert {path.stem for path in (state / "pids").iterdir()} == PARTS
    assert devstack(state, "down").wait(120) == 0
    assert list((state / "pids").iterdir()) == []
    assert all(alive((int(p.read_text()), stat_of(int(p.read_text()))[19])) for p in (other / "pids").iterdir())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_supervisor_however_it_ends(state: Path, number: signal.Signals) -> None:
    assert devstack(state, "up").wait(300) == 0
    pid = supervisor_of(state)
    members = family(pid)
    assert len(members) >= len(PARTS)  # the sandboxes' interpreters are among them

    os.kill(pid, number)

    wait_until(lambda: not any(alive(member) for member in members), "all that it had started to end")


@pytest.mark.parametrize("verb", ["up", "demo"])
def test_ctrl_c_while_it_starts_ends_all_of_it(state: Path, verb: str) -> None:
    running = devstack(state, verb)

    def pids() -> list[Path]:
        return [*state.glob("pids/registry.pid"), *state.glob("demo-*/pids/registry.pid")]

    wait_until(pids, "the registry to start")
    supervisor = int((pids()[0].parent / "supervisor.pid").read_text())
    members = family(supervisor)

    os.killpg(running.pid, signal.SIGINT)

    assert running.wait(120) == 130
    said = (state.parent / "one.txt").read_text()
    assert "stopped by Ctrl-C" in said and "Traceback" not in said
    assert not any(alive(member) for member in members)
    assert not list(state.glob("demo-*"))
