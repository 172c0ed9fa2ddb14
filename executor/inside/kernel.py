"""Linux calls that the standard library of Python 3.6 lacks, through ctypes. Every call raises OSError naming itself.

What the kernel only reads is handed over as bytes: each ctypes buffer makes a type of its own, 50 pages to copy in a child.
"""

import _thread
import ctypes
import fcntl
import os
import resource
import socket
import struct
from typing import Any, List, Optional

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_LIBC.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_LIBC.unshare.argtypes = [ctypes.c_int]
_LIBC.setns.argtypes = [ctypes.c_int, ctypes.c_int]

_X86 = os.uname().machine == "x86_64"
PIVOT_ROOT = 155 if _X86 else 41
CAPSET = 126 if _X86 else 91
SECCOMP = 317 if _X86 else 277
PIDFD_OPEN, CLOSE_RANGE, MOUNT_SETATTR = 434, 436, 442
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
CLONE_NEWPID = 0x20000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
PR_SET_CHILD_SUBREAPER = 36
O_PATH = 0o10000000
_PIDFD_OPEN = getattr(os, "pidfd_open", None)
_AT_FDCWD, _AT_RECURSIVE, _AT_EMPTY_PATH = -100, 0x8000, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _IFF_UP = 0x8914, 0x8916, 1
_LO_UP = struct.pack("16sh14x", b"lo", _IFF_UP)  # what else lo is the kernel lets nobody change


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _text(value: Optional[str]) -> Optional[bytes]:
    return None if value is None else os.fsencode(value)


def syscall(number: int, what: str, *arguments: Any) -> int:
    """A system call by number; integers are passed as 64-bit values."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *wide), what)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_LIBC.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _checked(_LIBC.setns(descriptor, kind), "setns")


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """prctl(2)."""
    _checked(_LIBC.prctl(option, first, second, 0, 0), "prctl %d" % option)


def mount(source: Optional[str], target: str, kind: Optional[str], flags: int, data: Optional[str] = None) -> None:
    """mount(2)."""
    result = _LIBC.mount(_text(source), _text(target), _text(kind), flags, _text(data))
    _checked(result, "mount %s" % target)


def umount(target: str) -> None:
    """umount2(2), detaching what is still in use."""
    _checked(_LIBC.umount2(_text(target), MNT_DETACH), "umount %s" % target)


def restrict_mount(target: str, attributes: int) -> None:
    """mount_setattr(2) on a mount and all beneath it; only adds restrictions."""
    structure = struct.pack("=QQQQ", attributes, 0, 0, 0)
    syscall(
        MOUNT_SETATTR, "mount_setattr %s" % target, _AT_FDCWD, _text(target), _AT_RECURSIVE, structure, len(structure)
    )


def pivot_root(new: str) -> None:
    """Makes new the root and lets go of the old one. Source: pivot_root(2), 'pivot_root(".", ".")'."""
    os.chdir(new)
    syscall(PIVOT_ROOT, "pivot_root", b".", b".")
    umount(".")
    os.chdir("/")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    _checked(_LIBC.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def pidfd_open(pid: int) -> int:
    """pidfd_open(2); the descriptor is close-on-exec."""
    if _PIDFD_OPEN is not None:  # 3.9 and newer
        return int(_PIDFD_OPEN(pid))
    return syscall(PIDFD_OPEN, "pidfd_open", pid, 0)


def tasks_of_user() -> int:
    """How many processes and threads RLIMIT_NPROC counts now: no file tells, so the lowest limit that allows one more is sought.

    Changes the soft limit and leaves it lowered; to be called before the last word on it.
    """
    low, high = 0, 1 << 22  # kernel.pid_max is not higher
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if 0 <= most < high:
        high = most
    while low < high:
        middle = (low + high) // 2
        resource.setrlimit(resource.RLIMIT_NPROC, (middle, most))
        done = _thread.allocate_lock()
        done.acquire()
        try:
            _thread.start_new_thread(done.release, ())
        except RuntimeError:
            low = middle + 1
            continue
        done.acquire()
        high = middle
    return low


def children(pid: int) -> List[int]:
    """A process's children, of every thread; none when it is gone. Source: proc(5), task/TID/children."""
    found: List[int] = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, thread)) as file:
                found.extend(int(child) for child in file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended meanwhile
    return found


def offspring(pid: int) -> List[int]:
    """Its children, their children and so on; nearest first."""
    found = [pid]
    for one in found:
        found.extend(children(one))
    return found[1:]


def drop_capabilities() -> None:
    """Empties the bounding, ambient, effective, permitted and inheritable sets."""
    for number in range(64):
        if _LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break  # beyond the last that this kernel knows
    prctl(PR_CAP_AMBIENT, 4)  # PR_CAP_AMBIENT_CLEAR_ALL
    syscall(CAPSET, "capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))


def close_range(first: int, last: int) -> None:
    """close_range(2), both ends included."""
    if first <= last:
        syscall(CLOSE_RANGE, "close_range", first, last, 0)


def loopback(addresses: Any) -> None:
    """Brings up lo in this network namespace and gives it further IPv4 addresses. Source: netdevice(7)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        for index, address in enumerate(addresses):
            name = ("lo:%d" % (index + 1)).encode()
            request = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(sock, _SIOCSIFADDR, request)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _LO_UP)
    finally:
        sock.close()


class Filter(object):
    """A filter ready to be installed: an array of struct sock_filter where the kernel can read it."""

    def __init__(self, program: bytes) -> None:
        self._code = ctypes.create_string_buffer(program, len(program))
        self.header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(self._code))


def seccomp(made: Filter) -> None:
    """Installs a filter. Source: seccomp(2), SECCOMP_SET_MODE_FILTER."""
    syscall(SECCOMP, "seccomp", 1, 0, made.header)


def landlock_create(files: int, network: int, scoped: int, size: int) -> int:
    """A ruleset's descriptor; size: of struct landlock_ruleset_attr in the kernel's ABI."""
    attributes = struct.pack("=QQQ", files, network, scoped)
    return syscall(LANDLOCK_CREATE, "landlock_create_ruleset", attributes, size, 0)


def landlock_path(ruleset: int, rights: int, descriptor: int) -> None:
    """Allows rights beneath an open directory, or on an open file."""
    rule = struct.pack("=Qi", rights, descriptor)
    syscall(LANDLOCK_ADD, "landlock_add_rule", ruleset, 1, rule, 0)


def landlock_port(ruleset: int, rights: int, port: int) -> None:
    """Allows rights on a TCP port."""
    rule = struct.pack("=QQ", rights, port)
    syscall(LANDLOCK_ADD, "landlock_add_rule", ruleset, 2, rule, 0)


def landlock_restrict(ruleset: int) -> None:
    """The rules hold from now on, for this thread and all that come of it."""
    syscall(LANDLOCK_RESTRICT, "landlock_restrict_self", ruleset, 0)
