"""What a handler must not see, reach or change."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor.sandbox.job import Ended
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import make_job

Run = Callable[..., Ended]
REPOSITORY = Path(__file__).resolve().parents[3]


def test_every_layer_is_on_here(sandbox: SandboxedRuntime) -> None:
    assert sandbox.level is Level.FULL
    assert {name for name, state in sandbox.layers.items() if state != "on"} == {"keeper"}


def test_a_handler_sees_only_its_own_processes(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return str([n for n in os.listdir("/proc") if n.isdigit()])

    assert run(handler).text == "['1']"


def test_two_runs_at_once_do_not_see_each_other(sandbox: SandboxedRuntime) -> None:
    # given: a run that leaves a file and stays
    begun, results = threading.Event(), []

    def stays(**kwargs: Any) -> None:
        import time

        with open("/tmp/left", "w") as file:
            file.write("secret")
        time.sleep(3600)

    def looks(**kwargs: Any) -> str:
        import os

        return str((os.path.exists("/tmp/left"), [n for n in os.listdir("/proc") if n.isdigit()]))

    job = make_job(stays)

    def run_first() -> None:
        try:
            sandbox.run(job, on_started=begun.set)
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run_first)
    thread.start()
    assert begun.wait(20)
    # when
    text = sandbox.run(make_job(looks)).text
    sandbox.kill(job.run_id, "enough")
    thread.join(20)
    # then
    assert text == "(False, ['1'])"
    assert [str(error) for error in results] == ["enough"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/root/.bashrc",
        "/home",
        "/sys",
        "/run",
        "/dev/zero",
        "/dev/kmsg",
        "/dev/mem",
        str(REPOSITORY / "tests"),
        str(REPOSITORY / "executor"),
        str(Path(os.environ.get("HOME", "/nowhere")) / ".ssh"),
    ],
)
def test_the_hosts_files_are_not_there(run: Run, path: str) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return str(os.path.lexists(path))

    assert run(handler).text == "False"


@pytest.mark.parametrize(
    "path", ["/new", "/usr/new", "/etc/hosts", "/proc/sys/kernel/hostname", "/proc/self/oom_score_adj"]
)
def test_nothing_but_the_scratch_can_be_written(run: Run, path: str) -> None:
    def handler(**kwargs: Any) -> str:
        with open("/tmp/mine", "w") as file:
            file.write("mine")
        with open(path, "a") as file:
            file.write("x")
        return "written"

    ended = run(handler)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None and ended.error.type in ("PermissionError", "OSError")


def test_the_runtimes_own_files_cannot_be_written(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import numpy

        with open(numpy.__file__, "a"):
            return "opened"

    ended = run(handler)
    assert ended.error is not None and ended.error.type in ("PermissionError", "OSError")


def test_nothing_is_kept_for_the_next_run(run: Run) -> None:
    def leaves(**kwargs: Any) -> None:
        import builtins

        import numpy

        numpy.left = builtins.left = "here"  # type: ignore[attr-defined]
        with open("/tmp/left", "w") as file:
            file.write("x")

    def looks(**kwargs: Any) -> str:
        import builtins
        import os

        import numpy

        return str((hasattr(numpy, "left"), hasattr(builtins, "left"), os.path.exists("/tmp/left")))

    assert run(leaves).outcome is Outcome.SUCCEEDED
    assert run(looks).text == "(False, False, False)"


def test_the_environment_holds_known_names_only(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return " ".join(sorted(os.environ))

    assert run(handler).text == (
        "BTRDB_API_KEY DOWNLOADS_ENDPOINT EXECUTOR_CONTEXT HOME LANG MKL_NUM_THREADS MPLBACKEND NUMEXPR_NUM_THREADS "
        "OMP_NUM_THREADS OPENBLAS_NUM_THREADS TMPDIR TZ"
    )


def test_the_initial_environment_shows_nothing_of_the_executor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(**kwargs: Any) -> str:
        with open("/proc/self/environ") as file:
            return " ".join(sorted(entry.partition("=")[0] for entry in file.read().split("\0") if entry))

    assert run(handler).text == (
        "LANG MKL_NUM_THREADS MPLBACKEND NUMEXPR_NUM_THREADS OMP_NUM_THREADS OPENBLAS_NUM_THREADS TZ"
    )


def test_only_the_channel_and_the_standard_descriptors_are_open(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return str(len(os.listdir("/proc/self/fd")) - 1)

    assert run(handler).text == "4"


def test_no_capability_and_no_host_user_is_left(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        with open("/proc/self/status") as file:
            status = dict(line.rstrip("\n").split(":\t") for line in file if ":\t" in line)
        names = ("Uid", "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
        return " ".join(status[name].split()[0] for name in names)

    zero = "0" * 16
    assert run(handler).text == f"65534 {zero} {zero} {zero} {zero} 1 2"


@pytest.mark.parametrize(
    "family, kind",
    [
        ("AF_INET", "SOCK_DGRAM"),
        ("AF_INET6", "SOCK_DGRAM"),
        ("AF_INET", "SOCK_RAW"),
        ("AF_NETLINK", "SOCK_RAW"),
        ("AF_PACKET", "SOCK_RAW"),
        ("AF_VSOCK", "SOCK_STREAM"),
    ],
)
def test_only_unix_and_tcp_sockets_can_be_made(run: Run, family: str, kind: str) -> None:
    def handler(**kwargs: Any) -> str:
        import socket

        socket.socket(getattr(socket, family), getattr(socket, kind))
        return "made"

    ended = run(handler)
    assert ended.error is not None and ended.error.type == "PermissionError"


def test_no_address_of_the_host_can_be_reached(run: Run) -> None:
    # given: a server of the host on the loopback
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def handler(**kwargs: Any) -> str:
            import socket

            results = []
            for address in (("127.0.0.1", port), ("169.254.169.254", 80), ("8.8.8.8", 53)):
                try:
                    socket.create_connection(address, 2)
                    results.append("reached")
                except OSError as error:
                    results.append(type(error).__name__)
            return " ".join(results)

        assert "reached" not in run(handler).text


@pytest.mark.parametrize(
    "call",
    [
        "libc.ptrace(0, 0, 0, 0)",
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.unshare(0x10000000)",
        "libc.chroot(b'/tmp')",
        "libc.setns(0, 0)",
        "libc.syscall(425, 1, 0)",
        "libc.syscall(298 if x86 else 241, 0, 0, 0, 0, 0)",
        "libc.syscall(321 if x86 else 280, 0, 0, 0)",
        "libc.syscall(319 if x86 else 279, b'x', 0)",
    ],
)
def test_dangerous_system_calls_are_refused(run: Run, call: str) -> None:
    def handler(**kwargs: Any) -> str:
        import ctypes
        import errno
        import os

        libc = ctypes.CDLL(None, use_errno=True)
        result = eval(call, {"libc": libc, "x86": os.uname().machine == "x86_64"})
        return f"{result} {errno.errorcode[ctypes.get_errno()]}"

    assert run(handler).text in ("-1 EPERM", "-1 ENOSYS")


def test_hidden_shared_memory_cannot_be_had(run: Run) -> None:
    ended = run(lambda **kwargs: __import__("mmap").mmap(-1, 4096))
    assert ended.error is not None and ended.error.type == "PermissionError"


def test_ordinary_tools_work(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import multiprocessing
        import subprocess
        import sys
        import tempfile

        import numpy
        import pandas

        with tempfile.NamedTemporaryFile("w") as file:
            file.write("x")
        out = subprocess.run(["/bin/echo", "child"], capture_output=True, text=True, check=True).stdout.strip()
        code = "import numpy; print(numpy.arange(4).sum())"
        python = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            squares = pool.map(abs, [-1, -2])
        frame = pandas.DataFrame({"a": numpy.arange(3)}).to_csv()
        return f"{out} {python} {squares} {len(frame)}"

    ended = run(handler)
    assert ended.text == "child 6 [1, 2] 15", ended


def test_a_handler_can_end_the_processes_that_it_made(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import multiprocessing
        import subprocess
        import time

        sleeper = subprocess.Popen(["/bin/sleep", "3600"])
        sleeper.terminate()
        codes: set[int | None] = {sleeper.wait()}
        for _ in range(50):  # at once: a Python handler of SIGTERM would lose what comes during the fork
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
            worker.start()
            worker.terminate()
            worker.join()
            codes.add(worker.exitcode)
        return str(codes)

    ended = run(handler)
    assert ended.text == "{-15}", ended
    assert not ended.log
