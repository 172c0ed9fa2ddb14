"""The executor's options: what is wrong with them is said before anything starts."""

import sys
from pathlib import Path

import pytest

from executor.sandbox import filesystem
from executor.sandbox.job import Runtime, SandboxUnavailable
from executor.settings import MIB, ExecutorSettings, available_memory, check_memory


def settings(**changed: object) -> ExecutorSettings:
    given = {
        "runtimes": f"py3.11={sys.executable}",
        "registry": "127.0.0.1:1",
        "token_file": "token",
        "btrdb_endpoint": "127.0.0.1:4411",
        **changed,
    }
    return ExecutorSettings(**given)  # type: ignore[arg-type]


def test_runtimes_are_names_with_interpreters() -> None:
    assert settings().interpreters() == {"py3.11": Path(sys.executable)}


@pytest.mark.parametrize(
    ("runtimes", "says"),
    [("py3.11", "should be name=interpreter"), ("py3.11=/no/such", "there is no interpreter"), (" , ", "is empty")],
)
def test_a_wrong_list_of_runtimes_is_told_what_it_should_look_like(runtimes: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        settings(runtimes=runtimes).interpreters()


def machine(root: Path, **files: str) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemFree: 1 kB\nMemTotal:       4194304 kB\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_memory_there_is_is_the_least_of_machine_and_container(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path / "a")) == 4096 * MIB
    assert available_memory(machine(tmp_path / "b", **{"memory.max": "max\n"})) == 4096 * MIB
    assert available_memory(machine(tmp_path / "c", **{"memory.max": f"{512 * MIB}\n"})) == 512 * MIB
    assert available_memory(machine(tmp_path / "d", **{"memory__memory.limit_in_bytes": f"{64 * MIB}\n"})) == 64 * MIB


def test_slots_that_together_could_outgrow_the_container_are_refused_naming_the_settings() -> None:
    check_memory(settings(slots=2, memory_bytes=1024 * MIB, reserve_bytes=512 * MIB), 2560 * MIB)

    with pytest.raises(ValueError, match="lower EXECUTOR_SLOTS or EXECUTOR_MEMORY_BYTES"):
        check_memory(settings(slots=3, memory_bytes=1024 * MIB, reserve_bytes=512 * MIB), 2560 * MIB)


def test_a_runtime_whose_interpreter_is_another_python_is_refused_at_start() -> None:
    own = Path(sys.executable)

    filesystem.check(Runtime(f"py3.{sys.version_info.minor}", own))
    with pytest.raises(SandboxUnavailable, match=r"py3\.6 should be Python 3\.6, but .* is Python 3\."):
        filesystem.check(Runtime("py3.6", own))
