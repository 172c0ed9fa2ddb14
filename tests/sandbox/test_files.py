"""What a handler can read and write: the runtime, and its own scratch."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor.sandbox.job import Ended
from executor.sandbox.runtime import SandboxedRuntime

from .conftest import Stands, held, in_thread, make_job
from .sandboxes import Attack, everywhere, weaknesses

ROOT = ("build the root", "mount the zygote's proc", "enter the root")
FENCE = ("fence with Landlock",)
REPOSITORY = Path(__file__).resolve().parents[2]
UNDER_HOME = any(
    path.startswith("/home/") for path in (sys.prefix, sys.base_prefix)
)  # the runtime's own: its way is there


def reads_a_file_of_the_host(File: str) -> str:
    import json

    with open(json.loads(File)["secret"]) as file:
        return "reached" if file.read() else "empty"


def writes_a_file_of_the_host(File: str) -> str:
    import json

    with open(json.loads(File)["secret"], "r+"):
        return "reached"


def makes_a_file_on_the_host(File: str) -> str:
    import json
    import os

    os.close(os.open(json.loads(File)["folder"] + "/new", os.O_CREAT | os.O_WRONLY))
    return "reached"


def reads_the_executors_environment(File: str) -> str:
    """And that of every process there is, by every way into another's /proc."""
    import json
    import os

    facts, found = json.loads(File), []
    pids = [str(facts["executor"]), str(os.getppid()), "1"]
    if os.path.isdir("/proc"):
        try:
            pids += [name for name in os.listdir("/proc") if name.isdigit()]
        except OSError as error:
            found.append(str(error))
    for pid in pids:
        for name in ("environ", "mem", "maps", "cmdline", "root/etc/hostname", "cwd/.", "fd/0"):
            if pid == str(os.getpid()):
                continue
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    if name == "environ" and facts["canary"].encode() in file.read():
                        return "reached"
            except OSError as error:
                found.append(type(error).__name__)
    return " ".join(sorted(set(found)))


def climbs_out_by_its_own_descriptors(File: str) -> str:
    """Any descriptor that leads to a folder leads everywhere that folder's root does."""
    import json
    import os

    inside = json.loads(File)["secret"]
    for number in range(256):
        for start in ("", "/".join([".."] * 12)):
            try:
                os.close(os.open(os.path.join(start, inside.lstrip("/")), os.O_RDONLY, dir_fd=number))
                return "reached"
            except OSError:
                continue
    for way in ("/proc/self/root", "/proc/self/cwd/../../../..", "/proc/thread-self/root", "/proc/1/root"):
        try:
            os.close(os.open(way + inside, os.O_RDONLY))
            return "reached"
        except OSError:
            continue
    return "nothing"


def leaves_a_file_in_shared_memory(File: str) -> str:
    import json
    import os

    path: str = "/dev/shm/" + os.path.basename(json.loads(File)["folder"])
    with open(path, "w") as file:
        file.write("x")
    return path


def makes_a_device(File: str) -> str:
    """The kernel's log, made anew."""
    import os
    import stat

    os.chdir(os.environ.get("TMPDIR", "/tmp"))
    os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.remove("device")
    return "reached"


def opens_a_setting_of_the_kernel(File: str) -> str:
    with open("/proc/sys/kernel/core_pattern", "r+"):
        return "reached"


def leaves_by_chroot(File: str) -> str:
    import os

    os.chdir(os.environ.get("TMPDIR", "/tmp"))
    os.makedirs("jail", exist_ok=True)
    os.chroot("jail")
    return "reached"


ATTACKS = [
    Attack(reads_a_file_of_the_host, ROOT + FENCE, FENCE),
    Attack(writes_a_file_of_the_host, ROOT + FENCE, FENCE),
    Attack(makes_a_file_on_the_host, ROOT + FENCE, FENCE),
    Attack(reads_the_executors_environment, None, (*FENCE, "fence the keeper's signals")),
    Attack(climbs_out_by_its_own_descriptors, (*ROOT, *FENCE, "close descriptors"), FENCE),
    Attack(makes_a_device, bare="root"),
    Attack(opens_a_setting_of_the_kernel, bare="root"),
    Attack(leaves_by_chroot, ("filter system calls", "drop capabilities"), bare="root"),
]


@pytest.mark.parametrize("attack, level", everywhere(ATTACKS))
def test_nothing_of_the_host_can_be_read_or_changed(stands: Stands, attack: Attack, level: str) -> None:
    stands.holds(attack, level)

    assert not os.path.exists(stands.facts["folder"] + "/new")


@pytest.mark.parametrize("attack, level, without", weaknesses(ATTACKS))
def test_the_host_is_open_without_root_and_fence(
    stands: Stands, attack: Attack, level: str, without: tuple[str, ...]
) -> None:
    stands.lets_through(attack, level, without)

    with contextlib.suppress(FileNotFoundError):
        os.remove(stands.facts["folder"] + "/new")


def test_what_is_put_into_shared_memory_stays_in_the_run(stands: Stands, level: str) -> None:
    ended = stands.run(level, leaves_a_file_in_shared_memory)

    assert held(ended), ended
    assert not os.path.exists("/dev/shm/" + os.path.basename(stands.facts["folder"]))


def test_shared_memory_is_the_hosts_without_the_fence(stands: Stands) -> None:
    path = stands.run("pod", leaves_a_file_in_shared_memory, FENCE).text

    assert os.path.exists(path)
    os.remove(path)


def test_the_runtimes_own_files_cannot_be_written(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        import json

        with open(json.__file__, "a"):
            return "reached"

    ended = stands.run(level, handler)

    assert held(ended), ended


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/etc/shadow",
            "/root/.bashrc",
            "/sys",
            "/run",
            "/dev/zero",
            "/dev/kmsg",
            "/dev/mem",
            "/var/run/secrets",
        ),
        *([] if UNDER_HOME else ["/home"]),
        *(f"{REPOSITORY}/tests", f"{REPOSITORY}/executor", f"{os.environ.get('HOME', '/nowhere')}/.ssh"),
    ],
)
def test_the_hosts_files_are_not_there(run: Callable[..., Ended], path: str) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return str(os.path.lexists(path))

    assert run(handler).text == "False"


def test_two_runs_at_once_do_not_see_each_other(stands: Stands, sandbox: SandboxedRuntime) -> None:
    # given: a run that leaves a file and stays
    begun = threading.Event()

    def stays(**kwargs: Any) -> None:
        import time

        with open("/tmp/left", "w") as file:
            file.write("secret")
        time.sleep(3600)

    def looks(**kwargs: Any) -> str:
        import os

        return str((os.path.exists("/tmp/left"), [n for n in os.listdir("/proc") if n.isdigit()]))

    job = make_job(stays)
    thread, results = in_thread(lambda: sandbox.run(job, on_started=begun.set))
    assert begun.wait(60)
    # when
    text = sandbox.run(make_job(looks)).text
    sandbox.kill(job.run_id, "enough")
    thread.join(60)
    # then
    assert text == "(False, ['1'])"
    assert [str(error) for error in results] == ["enough"]


def test_only_the_channel_and_the_standard_descriptors_are_open(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return str(len(os.listdir("/proc/self/fd")) - 1)

    assert stands.run(level, handler).text == "4"
    assert int(stands.run(level, handler, ("close descriptors",)).text) > 4


def test_the_environment_holds_known_names_only(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        with open("/proc/self/environ") as file:
            initial = sorted(entry.partition("=")[0] for entry in file.read().split("\0") if entry)
        return " ".join([*sorted(os.environ), "|", *initial])

    assert stands.run(level, handler).text == (
        "BTRDB_API_KEY DOWNLOADS_ENDPOINT EXECUTOR_CONTEXT HOME LANG MKL_NUM_THREADS MPLBACKEND NUMEXPR_NUM_THREADS "
        "OMP_NUM_THREADS OPENBLAS_NUM_THREADS TMPDIR TZ | LANG MKL_NUM_THREADS MPLBACKEND NUMEXPR_NUM_THREADS "
        "OMP_NUM_THREADS OPENBLAS_NUM_THREADS TZ"
    )
