"""Control groups: found in trees as hosts and containers have them, and the kernel's own limit where one can be made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.sandbox.cgroup import OWN, Cgroups, NoCgroups, Place, find
from executor.sandbox.job import MIB, Access
from executor.sandbox.memory import Held, Watch
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import RUNTIME, make_job

V1 = "31 24 0:27 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2 = "31 24 0:27 {root} /sys/fs/cgroup rw - cgroup2 cgroup rw\n"


def host(place: Path, own: str, mounts: str, controllers: str | None = None) -> Path:
    """A root with /proc and /sys as a host has them; controllers: of the version 2 group that a process is in."""
    (place / "proc/self").mkdir(parents=True)
    (place / "proc/self/cgroup").write_text(own)
    (place / "proc/self/mountinfo").write_text(mounts)
    if controllers is not None:
        group = place / "sys/fs/cgroup" / own.strip().split(":")[2].lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.controllers").write_text(controllers)
    return place


@pytest.mark.parametrize(
    ("own", "mounts", "controllers", "folder", "version"),
    [
        ("4:memory:/jobs/7\n0::/\n", V1.format(root="/"), None, "sys/fs/cgroup/memory/jobs/7", 1),
        ("4:cpu,memory:/pod/c\n", V1.format(root="/pod/c"), None, "sys/fs/cgroup/memory", 1),
        ("0::/app.slice/e.service\n", V2.format(root="/"), "cpu memory", "sys/fs/cgroup/app.slice/e.service", 2),
        ("0::/\n", V2.format(root="/"), "memory pids", "sys/fs/cgroup", 2),
        (f"0::/a/{OWN}\n", V2.format(root="/"), "memory", "sys/fs/cgroup/a", 2),
    ],
)
def test_the_own_group_is_found(
    tmp_path: Path, own: str, mounts: str, controllers: str | None, folder: str, version: int
) -> None:
    root = host(tmp_path, own, mounts, controllers if OWN not in own else None)
    if OWN in own:
        (root / "sys/fs/cgroup/a").mkdir(parents=True)
        (root / "sys/fs/cgroup/a/cgroup.controllers").write_text("memory")

    assert find(root) == Place(root / folder, version)


def test_a_hierarchy_that_counts_no_memory_is_none(tmp_path: Path) -> None:
    root = host(tmp_path, "1:cpu:/x\n0::/\n", V2.format(root="/"), "cpu hugetlb")

    with pytest.raises(NoCgroups, match="no control group with the memory controller"):
        find(root)


def test_a_group_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoCgroups, match="no group can be made in"):
        Cgroups(Place(tmp_path / "not-there", 1))


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxedRuntime]:
    """A sandbox with control groups, whose own watch sees nothing."""
    try:
        Cgroups(find()).close()
    except NoCgroups as error:
        pytest.skip(f"no control groups here: {error}")
    monkeypatch.setattr(Watch, "sample", lambda *given, **named: Held())
    one = SandboxedRuntime(RUNTIME, Access(None), warm=1, scratch_bytes=256 * MIB)
    one.start()
    yield one
    one.close()


def takes_much_in_many(**kwargs: Any) -> str:
    """Each stays far below the limit."""
    import os

    for _ in range(6):
        if os.fork() == 0:
            held = b"x" * (40 << 20)
            os.read(0, len(held) and 1)
            while True:
                pass
    codes = [os.wait()[1] for _ in range(6)]
    return f"ended {codes}"


def test_the_kernel_ends_what_the_watch_has_not_seen_and_the_cause_is_told(limited: SandboxedRuntime) -> None:
    assert limited.layers["cgroup"] == "on"

    ended = limited.run(make_job(takes_much_in_many, memory_bytes=96 * MIB, wall_s=20.0))

    assert ended.outcome is Outcome.OUT_OF_MEMORY, ended
    assert ended.error is not None and "the kernel killed one of its processes" in ended.error.message
    assert "its limit is 96 MiB, its peak was" in ended.error.message
    assert ended.peak_memory_bytes > 64 * MIB


def test_files_in_the_scratch_are_the_kernels_to_count_too(limited: SandboxedRuntime) -> None:
    def handler(**kwargs: Any) -> str:
        with open("/tmp/large", "wb") as file:
            for _ in range(200):
                file.write(b"x" * (1 << 20))
        return "written"

    ended = limited.run(make_job(handler, memory_bytes=96 * MIB, scratch_bytes=256 * MIB))

    assert ended.outcome is Outcome.OUT_OF_MEMORY, ended
    assert limited.run(make_job(lambda **kwargs: "next", scratch_bytes=256 * MIB)).text == "next"


def test_a_peak_between_two_looks_is_known(limited: SandboxedRuntime) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        for _ in range(3):
            if os.fork() == 0:
                os._exit(len(b"x" * (40 << 20)) & 0)
            os.wait()
        return "gone again"

    ended = limited.run(make_job(handler, memory_bytes=512 * MIB, scratch_bytes=256 * MIB))

    assert ended.text == "gone again"
    assert 30 * MIB < ended.peak_memory_bytes < 120 * MIB, ended.peak_memory_bytes / MIB


def test_no_group_is_left_behind(limited: SandboxedRuntime) -> None:
    limited.run(make_job(lambda **kwargs: "x", scratch_bytes=256 * MIB))
    limited.close()
    groups = limited._cgroups
    assert groups is not None

    assert not groups._path.exists()
