"""Calls into the kernel that a handler has no business to make."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from schemas.records import Outcome

from .conftest import REACHED, Stands, held
from .sandboxes import bare

FILTER = ("filter system calls",)

# name: (number on x86-64, number on aarch64, arguments that do no harm where the call is let through)
CALLS: dict[str, tuple[int, int, tuple[int | bytes, ...]]] = {
    "ptrace": (101, 117, (0, 0, 0, 0)),
    "process_vm_readv": (310, 270, (1, 0, 0, 0, 0, 0)),
    "process_vm_writev": (311, 271, (1, 0, 0, 0, 0, 0)),
    "pidfd_getfd": (438, 438, (-1, 0, 0)),
    "kcmp": (312, 272, (1, 1, 0, 0, 0)),
    "process_madvise": (440, 440, (-1, 0, 0, 0, 0)),
    "keyctl": (250, 219, (0, -3, 0)),
    "add_key": (248, 217, (0, 0, 0, 0, 0)),
    "request_key": (249, 218, (0, 0, 0, 0)),
    "bpf": (321, 280, (0, 0, 0)),
    "perf_event_open": (298, 241, (0, 0, 0, -1, 0)),
    "userfaultfd": (323, 282, (1,)),
    "io_uring_setup": (425, 425, (1, 0)),
    "io_uring_enter": (426, 426, (-1, 0, 0, 0, 0, 0)),
    "io_uring_register": (427, 427, (-1, 0, 0, 0)),
    "memfd_create": (319, 279, (b"code", 0)),
    "shmget": (29, 194, (0, 4096, 0o1600)),
    "msgget": (68, 186, (0, 0o1600)),
    "semget": (64, 190, (0, 1, 0o1600)),
    "mq_open": (240, 180, (b"queue", 0o102, 0o600, 0)),
    "mount": (165, 40, (b"none", b"/no-such", b"tmpfs", 0, 0)),
    "umount2": (166, 39, (b"/no-such", 0)),
    "pivot_root": (155, 41, (b"/no-such", b"/no-such")),
    "chroot": (161, 51, (b"/no-such",)),
    "setns": (308, 268, (-1, 0)),
    "clone3": (435, 435, (0, 0)),
    "open_tree": (428, 428, (-100, b"/", 0)),
    "move_mount": (429, 429, (-1, b"", -1, b"", 0)),
    "fsopen": (430, 430, (b"no-such", 0)),
    "mount_setattr": (442, 442, (-1, b"", 0, 0, 0)),
    "name_to_handle_at": (303, 264, (-100, b"/", 0, 0, 0)),
    "open_by_handle_at": (304, 265, (-100, 0, 0)),
    "fanotify_init": (300, 262, (0x200, 0)),
    "inotify_init1": (294, 26, (0,)),
    "swapon": (167, 224, (0, 0)),
    "reboot": (169, 142, (0, 0, 0, 0)),
    "syslog": (103, 116, (10, 0, 0)),
    "settimeofday": (164, 170, (0, 0)),
    "vmsplice": (278, 75, (-1, 0, 0, 0)),
    "move_pages": (279, 239, (0, 0, 0, 0, 0, 0)),
    "personality": (135, 92, (0x0040000,)),
    "terminal injection": (16, 29, (0, 0x5412, 0)),
    "unshare a user namespace": (272, 97, (0x10000000,)),  # last: it takes rights away
}


def makes_all_calls(**kwargs: Any) -> str:
    """What the kernel says to each. Refused are EPERM, EACCES and ENOSYS; any other answer means that it was done."""
    import ctypes
    import errno
    import json
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    said = {}
    for name, (x86, arm, arguments) in CALLS.items():
        wide = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(x86 if os.uname().machine == "x86_64" else arm), *wide)
        number = ctypes.get_errno() if result < 0 else 0
        refused = number in (errno.EPERM, errno.EACCES, errno.ENOSYS)
        said[name] = f"{'refused' if refused else 'reached'}: {result} {errno.errorcode.get(number)}"
    return json.dumps(said)


Answers = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def answers(stands: Stands) -> Answers:
    """What the kernel says to all calls, asked once per level and weakening; bare: without a sandbox."""
    known: dict[Any, dict[str, str]] = {}

    def ask(level: str, without: tuple[str, ...] = ()) -> dict[str, str]:
        if (level, without) not in known:
            if level == "bare":
                text = bare(makes_all_calls)
            else:
                ended = stands.run(level, makes_all_calls, without)
                assert ended.outcome is Outcome.SUCCEEDED, ended
                text = ended.text
            known[level, without] = json.loads(text)
        return known[level, without]

    return ask


@pytest.mark.parametrize("name", CALLS)
def test_a_dangerous_call_is_refused(answers: Answers, level: str, name: str) -> None:
    assert REACHED not in answers(level)[name]


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_is_made_without_the_filter(answers: Answers, name: str) -> None:
    # when: without the filter, or as this test's own user where the kernel refuses it to a handler's
    said = [answers("full", FILTER)[name], answers("bare")[name]]
    if not any(REACHED in one for one in said) and ("ENOSYS" in said[-1] or os.geteuid() != 0):
        pytest.skip(f"this kernel does not let this user make the call, sandbox or not: {said[-1]}")

    assert any(REACHED in one for one in said)


def by_interrupt(**kwargs: Any) -> str:
    """getpid(2) of the 32-bit ABI, whose numbers no filter for 64 bits knows."""
    import ctypes
    import mmap

    code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return f"reached: {ctypes.CFUNCTYPE(ctypes.c_int)(address)()}"


def by_x32(**kwargs: Any) -> str:
    """getpid(2) of the x32 ABI."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(39 | 0x40000000))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"reached: {result}"


x86_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the other ABIs are x86's")


@x86_only
@pytest.mark.parametrize("attack", [by_interrupt, by_x32])
def test_calls_of_another_abi_are_refused(stands: Stands, level: str, attack: Callable[..., str]) -> None:
    ended = stands.run(level, attack)

    assert held(ended), ended


@x86_only
@pytest.mark.parametrize("attack", [by_interrupt, by_x32])
def test_calls_of_another_abi_are_made_without_the_filter(stands: Stands, attack: Callable[..., str]) -> None:
    ended = stands.run("full", attack, FILTER)
    if ended.outcome is not Outcome.SUCCEEDED and REACHED not in bare(attack):
        pytest.skip(f"this kernel has no such ABI: {ended.error}")

    assert REACHED in ended.text


def by_setuid(**kwargs: Any) -> str:
    """Becomes root by a set-user-id program of the runtime's files, looked at while it waits for input."""
    import os
    import subprocess
    import time

    programs = [p for p in ("/usr/bin/passwd", "/usr/bin/su", "/usr/bin/chfn", "/usr/bin/gpasswd") if os.path.exists(p)]
    programs = [p for p in programs if os.stat(p).st_mode & 0o4000 and os.stat(p).st_uid == 0]
    own = os.stat("/proc/self").st_uid if os.path.exists("/proc/self") else os.getuid()
    for program in programs:
        process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 1.0
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with open(f"/proc/{process.pid}/status") as file:
                    ids = next(line for line in file if line.startswith("Uid:")).split()[1:]
            except OSError:
                ids = []
            if ids[1:2] == ["0"] and own != 0:
                process.kill()
                return f"reached: {program} runs as {ids}"
        process.kill()
    return f"tried {len(programs)}"


def test_set_user_id_programs_give_nothing(stands: Stands, level: str) -> None:
    ended = stands.run(level, by_setuid)

    assert held(ended), ended


def test_set_user_id_programs_give_root_outside() -> None:
    if os.geteuid() != 0 or not os.path.exists("/usr/bin/python3"):
        pytest.skip("needs root, to become another user, and the system's Python")
    code = f"from typing import Any\n{inspect.getsource(by_setuid)}\nprint(by_setuid())"
    done = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, user=1000, text=True, check=False)
    if "tried 0" in done.stdout:
        pytest.skip("this machine has no set-user-id programs")

    assert REACHED in done.stdout, done.stderr
