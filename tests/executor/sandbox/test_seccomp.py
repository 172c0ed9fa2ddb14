"""The system call filter as data: every call through an interpreter of classic BPF, without a kernel."""

from __future__ import annotations

import signal
import struct

import pytest

from executor.sandbox import seccomp

LOAD, JUMP, EQUAL, GREATER_EQUAL, AND, RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06


def treat(machine: str, call: str | int, *arguments: int) -> int:
    """What the filter for machine says to a call with these arguments."""
    architecture = seccomp.ARCHITECTURES[machine]
    number = call if isinstance(call, int) else architecture.numbers[call]
    data = struct.pack("=iIQ6Q", number, architecture.audit, 0, *(n & (2**64 - 1) for n in (*arguments, *[0] * 6)[:6]))
    lines = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    place, accumulator = 0, 0
    while True:
        code, yes, no, k = lines[place]
        place += 1
        if code == LOAD:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == JUMP:
            place += k
        elif code == EQUAL:
            place += yes if accumulator == k else no
        elif code == GREATER_EQUAL:
            place += yes if accumulator >= k else no
        elif code == AND:
            accumulator &= k
        elif code == RETURN:
            return int(k)


@pytest.fixture(params=seccomp.ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "call, arguments, action",
    [
        ("kill", (2, signal.SIGTERM), seccomp.ALLOW),
        ("kill", (1, 0), seccomp.ALLOW),
        ("kill", (1, signal.SIGUSR1), seccomp.ALLOW),
        ("kill", (1, signal.SIGKILL), seccomp.KILL),
        ("kill", (0, signal.SIGKILL), seccomp.KILL),
        ("kill", (-1, signal.SIGKILL), seccomp.ALLOW),
        ("tkill", (1, signal.SIGSTOP), seccomp.KILL),
        ("tgkill", (1, 1, signal.SIGABRT), seccomp.KILL),
        ("tgkill", (7, 7, signal.SIGABRT), seccomp.ALLOW),
        ("rt_sigqueueinfo", (1, signal.SIGKILL), seccomp.KILL),
        ("rt_tgsigqueueinfo", (1, 1, signal.SIGKILL), seccomp.KILL),
        ("clone", (signal.SIGCHLD,), seccomp.ALLOW),
        ("clone", (0x10000000,), seccomp.REFUSE),
        ("unshare", (0x00020000,), seccomp.REFUSE),
        ("unshare", (0x400,), seccomp.ALLOW),
        ("clone3", (), seccomp.ABSENT),
        ("setns", (3, 0), seccomp.REFUSE),
        ("socket", (1, 1, 0), seccomp.ALLOW),
        ("socket", (1, 2, 0), seccomp.ALLOW),
        ("socket", (2, 1, 0), seccomp.ALLOW),
        ("socket", (10, 1 | 0x80000, 6), seccomp.ALLOW),
        ("socket", (2, 2, 0), seccomp.REFUSE),
        ("socket", (10, 2, 0), seccomp.REFUSE),
        ("socket", (2, 1, 132), seccomp.REFUSE),
        ("socket", (2, 1, 262), seccomp.REFUSE),
        ("socket", (16, 3, 0), seccomp.REFUSE),
        ("socket", (38, 5, 0), seccomp.REFUSE),
        ("ioctl", (0, 0x5401), seccomp.ALLOW),
        ("ioctl", (0, 0x5412), seccomp.REFUSE),
        ("ioctl", (0, 0x5412 | 1 << 32), seccomp.REFUSE),
        ("mmap", (0, 4096, 3, 0x22), seccomp.ALLOW),
        ("mmap", (0, 4096, 3, 0x21), seccomp.REFUSE),
        ("mmap", (0, 4096, 3, 0x01), seccomp.ALLOW),
        ("personality", (0xFFFFFFFF,), seccomp.ALLOW),
        ("personality", (0x40000,), seccomp.REFUSE),
        ("ptrace", (), seccomp.REFUSE),
        ("bpf", (), seccomp.REFUSE),
        ("io_uring_setup", (), seccomp.ABSENT),
        ("memfd_create", (), seccomp.ABSENT),
        ("shmget", (), seccomp.ABSENT),
        (5000, (), seccomp.ABSENT),
        (0x40000000, (), seccomp.ABSENT),
    ],
)
def test_a_call_is_treated_as_written(machine: str, call: str | int, arguments: tuple[int, ...], action: int) -> None:
    assert treat(machine, call, *arguments) == action


def test_another_architecture_is_the_end(machine: str) -> None:
    lines = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))

    assert lines[0][3] == 4, "the architecture is looked at before all else"
    other = next(name for name in seccomp.ARCHITECTURES if name != machine)
    assert lines[1][3] == seccomp.ARCHITECTURES[machine].audit != seccomp.ARCHITECTURES[other].audit


def test_a_machine_without_a_table_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"riscv64; there are x86_64, aarch64"):
        seccomp.program("riscv64")
