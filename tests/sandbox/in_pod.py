"""An executor's sandbox as it stands in a pod: a process made as like one as this machine can make it, which runs jobs.

python -m tests.sandbox.in_pod LIKE, spoken to by pickles over its standard input and output. LIKE is one of KINDS.
A question is a job with the steps to leave out of its sandbox at level pod (None: a whole one with namespaces), an Access for
the sandboxes to come, or the lowest level allowed.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

USER = 1000
KINDS = {
    "default": "the default seccomp profile: no namespaces",
    "localhost": "a Localhost profile that allows namespaces, /proc masked as containers have it",
    "host-users": "the same with hostUsers: false",
    "unmasked": "with hostUsers: false and procMount: Unmasked",
}
NEW_NS, NEW_USER, NEW_PID = 0x00020000, 0x10000000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
EPERM, ENOSYS = 1, 38
REFUSED = """
    mount umount2 pivot_root setns open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr keyctl add_key
    request_key bpf perf_event_open userfaultfd open_by_handle_at io_uring_setup io_uring_enter io_uring_register
"""
"""By the default profile of containerd, of a container without capabilities."""

libc = ctypes.CDLL(None, use_errno=True)


def main(like: str) -> None:
    """Becomes what LIKE says, then answers until its input ends."""
    if os.geteuid() == 0:
        _as_a_container(like)
    libc.prctl(38, 1, 0, 0, 0)
    if like == "default":
        _filter()
    os.environ["TMPDIR"] = "/tmp"
    _serve(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))


def _as_a_container(like: str) -> None:
    """Mounts of its own, an unprivileged user without capabilities; with a user namespace where the pod has one."""
    if like in ("host-users", "unmasked"):
        _enter_user_namespace()
    else:
        _call(libc.unshare(NEW_NS), "unshare")
    _call(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private")
    if like in ("host-users", "unmasked"):
        _call(libc.mount(b"proc", b"/proc", b"proc", 0, None), "proc")
    if like in ("localhost", "host-users"):
        _call(libc.mount(b"none", b"/proc/fs", b"tmpfs", 1, None), "mask")
    for path in (sys.base_prefix, sys.prefix, str(Path(__file__).resolve().parents[2])):
        _reachable(Path(path).resolve())
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    libc.prctl(4, 1, 0, 0, 0)  # as an exec would leave it: /proc of our own is ours


def _enter_user_namespace() -> None:
    """The first process of a pod's own namespaces; the process that began stays behind as its supervisor."""
    asks, asked = os.pipe()
    answers, answered = os.pipe()
    pid = os.fork()
    if pid:
        os.read(asks, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text("0 0 65536\n")
        os.write(answered, b"x")
        _, status = os.waitpid(pid, 0)
        os._exit(os.WEXITSTATUS(status))
    libc.prctl(1, 9, 0, 0, 0)
    _call(libc.unshare(NEW_USER | NEW_NS | NEW_PID), "unshare")
    os.write(asked, b"x")
    os.read(answers, 1)
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(os.WEXITSTATUS(status))
    libc.prctl(1, 9, 0, 0, 0)


def _reachable(path: Path) -> None:
    """Uncovers a path that lies in a folder closed to other users (root's home), in this mount namespace alone."""
    closed = [one for one in reversed(path.parents) if not one.stat().st_mode & 0o001]
    if not closed:
        return
    source = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    _call(libc.mount(b"none", os.fsencode(closed[0]), b"tmpfs", 0, b"mode=0755"), "cover")
    path.mkdir(parents=True)
    _call(libc.mount(f"/proc/self/fd/{source}".encode(), os.fsencode(path), None, MS_BIND | MS_REC, None), "bind")
    os.close(source)


def _filter() -> None:
    """The default profile's answers to what makes namespaces, and to a few others."""
    from executor.sandbox import seccomp

    numbers = seccomp.ARCHITECTURES[os.uname().machine].numbers
    lines = [(0x20, 0, 0, 0)]  # the call's number
    for name in REFUSED.split():
        if name in numbers:
            lines += [(0x15, 0, 1, numbers[name]), (0x06, 0, 0, 0x00050000 | EPERM)]
    lines += [(0x15, 0, 1, numbers["clone3"]), (0x06, 0, 0, 0x00050000 | ENOSYS)]
    for name in ("clone", "unshare"):
        lines += [(0x15, 0, 4, numbers[name]), (0x20, 0, 0, 16), (0x54, 0, 0, 0x7E020000)]
        lines += [(0x15, 1, 0, 0), (0x06, 0, 0, 0x00050000 | EPERM), (0x20, 0, 0, 0)]
    lines.append((0x06, 0, 0, 0x7FFF0000))
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(lines), ctypes.addressof(code)), 16)
    _call(libc.prctl(22, 2, header, 0, 0), "seccomp")


def _call(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    from executor.sandbox.job import Access, SandboxUnavailable
    from executor.sandbox.levels import Level
    from tests.sandbox.sandboxes import weakened

    os.dup2(2, 1)  # what is logged must not be taken for an answer
    standing: dict[Any, Any] = {}
    while True:
        try:
            asked = pickle.load(questions)
        except EOFError:
            break
        try:
            if isinstance(asked, tuple):
                job, key = asked
                if key not in standing:
                    level = Level.NAMESPACES if key is None else Level.POD
                    access = standing.get("access", Access(None))
                    standing[key] = weakened(*(key or ()), level=level, access=access)
                answer = standing[key].run(job)
            elif isinstance(asked, Access):
                standing["access"], answer = asked, None
            else:  # a level: what stands when it is the lowest
                one = weakened(lowest=asked)
                answer = (one.level, dict(one.layers))
                one.close()
        except (SandboxUnavailable, Exception) as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()
    for one in standing.values():
        if hasattr(one, "close"):
            one.close()


if __name__ == "__main__":
    main(sys.argv[1])
