"""The system call filter: what is refused and how, as data, and a small assembler that turns it into classic BPF.

Sources: seccomp(2), linux/filter.h, linux/seccomp.h; numbers from asm/unistd_64.h (x86-64) and asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALLOW = 0x7FFF0000
KILL = 0x80000000  # the whole process, by SIGSYS
_ERRNO = 0x00050000
REFUSE = _ERRNO | errno.EPERM
ABSENT = _ERRNO | errno.ENOSYS
"""As if the kernel had no such call: libraries then fall back."""
DONE = _ERRNO
"""As if it had been done."""

# classic BPF: opcodes and the offsets in struct seccomp_data
_LOAD, _JUMP, _EQUAL, _GREATER_EQUAL, _AND, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} and CLONE_NEWTIME
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_TYPE_MASK = 1, 0xF
_IPPROTO_TCP = 6
_MAP_SHARED_ANONYMOUS = 0x21
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PERSONALITY_QUERY = 0xFFFFFFFF
_DEADLY = (6, 9, 11, 15, 19)  # ABRT KILL SEGV TERM STOP: PID 1 would ignore them from itself

_PLAIN: Mapping[int, str] = {
    REFUSE: """
        ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd
        keyctl add_key request_key bpf perf_event_open userfaultfd
        mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr setns
        swapon swapoff reboot kexec_load kexec_file_load init_module finit_module delete_module
        iopl ioperm modify_ldt settimeofday clock_settime clock_adjtime adjtimex acct quotactl quotactl_fd syslog
        sethostname setdomainname vhangup nfsservctl lookup_dcookie name_to_handle_at open_by_handle_at
        fanotify_init fanotify_mark inotify_init inotify_init1 vmsplice migrate_pages move_pages mbind set_mempolicy set_mempolicy_home_node
        ustat sysfs uselib remap_file_pages create_module get_kernel_syms query_module _sysctl
    """,
    # inotify above: the kernel counts its instances by user, so that one run could take them from all others.
    # Below: memory that no resident set shows, and a queue of kernel work that filters do not see
    ABSENT: """
        memfd_create memfd_secret shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop
        mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
        io_uring_setup io_uring_enter io_uring_register clone3 statmount listmount
    """,
    # each session is scheduled as a group of its own, as much worth as the executor (sched(7), "The autogroup feature")
    DONE: "setsid",
}
_TREATMENTS = {REFUSE: "refuse", ABSENT: "absent", DONE: "done"}


@dataclass(frozen=True)
class Architecture:
    """audit: AUDIT_ARCH_*; last: calls above it are unknown to this table and absent; numbers: by name."""

    audit: int
    last: int
    numbers: Mapping[str, int]


def _table(text: str) -> Mapping[str, int]:
    words = text.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


_BOTH = _table("""
    process_madvise 440 process_mrelease 448 pidfd_getfd 438 io_uring_setup 425 io_uring_enter 426 io_uring_register 427
    open_tree 428 move_mount 429 fsopen 430 fsconfig 431 fsmount 432 fspick 433 mount_setattr 442 quotactl_fd 443
    memfd_secret 447 set_mempolicy_home_node 450 clone3 435 statmount 457 listmount 458
""")

ARCHITECTURES: Mapping[str, Architecture] = {
    "x86_64": Architecture(
        0xC000003E,
        462,
        {
            **_BOTH,
            **_table("""
    ptrace 101 process_vm_readv 310 process_vm_writev 311 kcmp 312 keyctl 250 add_key 248 request_key 249 bpf 321
    perf_event_open 298 userfaultfd 323 mount 165 umount2 166 pivot_root 155 chroot 161 setns 308 swapon 167 swapoff 168
    reboot 169 kexec_load 246 kexec_file_load 320 init_module 175 finit_module 313 delete_module 176 iopl 172 ioperm 173
    modify_ldt 154 settimeofday 164 clock_settime 227 clock_adjtime 305 adjtimex 159 acct 163 quotactl 179 syslog 103
    sethostname 170 setdomainname 171 vhangup 153 nfsservctl 180 lookup_dcookie 212 name_to_handle_at 303
    open_by_handle_at 304 fanotify_init 300 fanotify_mark 301 memfd_create 319 shmget 29 shmat 30 shmctl 31 shmdt 67
    msgget 68 msgsnd 69 msgrcv 70 msgctl 71 semget 64 semop 65 semctl 66 semtimedop 220 mq_open 240 mq_unlink 241
    mq_timedsend 242 mq_timedreceive 243 mq_notify 244 mq_getsetattr 245 vmsplice 278 migrate_pages 256 move_pages 279
    mbind 237 set_mempolicy 238 ustat 136 sysfs 139 uselib 134 remap_file_pages 216 create_module 174
    get_kernel_syms 177 query_module 178 _sysctl 156 personality 135 unshare 272 clone 56 socket 41 socketpair 53 ioctl 16
    mmap 9 kill 62 tgkill 234 tkill 200 rt_sigqueueinfo 129 rt_tgsigqueueinfo 297 inotify_init 253 inotify_init1 294
    prlimit64 302 sched_setparam 142 sched_setscheduler 144 sched_setaffinity 203 sched_setattr 314 setpriority 141
    ioprio_set 251 setsid 112
            """),
        },
    ),
    "aarch64": Architecture(
        0xC00000B7,
        462,
        {
            **_BOTH,
            **_table("""
    ptrace 117 process_vm_readv 270 process_vm_writev 271 kcmp 272 keyctl 219 add_key 217 request_key 218 bpf 280
    perf_event_open 241 userfaultfd 282 mount 40 umount2 39 pivot_root 41 chroot 51 setns 268 swapon 224 swapoff 225
    reboot 142 kexec_load 104 kexec_file_load 294 init_module 105 finit_module 273 delete_module 106 settimeofday 170
    clock_settime 112 clock_adjtime 266 adjtimex 171 acct 89 quotactl 60 syslog 116 sethostname 161 setdomainname 162
    vhangup 58 nfsservctl 42 lookup_dcookie 18 name_to_handle_at 264 open_by_handle_at 265 fanotify_init 262
    fanotify_mark 263 memfd_create 279 shmget 194 shmat 196 shmctl 195 shmdt 197 msgget 186 msgsnd 189 msgrcv 188
    msgctl 187 semget 190 semop 193 semctl 191 semtimedop 192 mq_open 180 mq_unlink 181 mq_timedsend 182
    mq_timedreceive 183 mq_notify 184 mq_getsetattr 185 vmsplice 75 migrate_pages 238 move_pages 239 mbind 235
    set_mempolicy 237 remap_file_pages 234 personality 92 unshare 97 clone 220 socket 198 socketpair 199 ioctl 29 mmap 222
    kill 129 tgkill 131 tkill 130 rt_sigqueueinfo 138 rt_tgsigqueueinfo 240 inotify_init1 26
    prlimit64 261 sched_setparam 118 sched_setscheduler 119 sched_setaffinity 122 sched_setattr 274 setpriority 140
    ioprio_set 30 setsid 157
            """),
        },
    ),
}


@dataclass(frozen=True)
class _Line:
    """One instruction; yes/no: labels to jump to, None for the next line."""

    code: int
    k: int = 0
    yes: str | None = None
    no: str | None = None
    label: str | None = None


def program(machine: str, *, namespaces: bool = True) -> bytes:
    """The filter for a machine as uname(2) names it: an array of struct sock_filter, in native byte order.

    namespaces: whether the run has its own; without them it may make no Internet socket and touch no process by its id but
    itself. Raises ValueError for a machine without a table.
    """
    if machine not in ARCHITECTURES:
        raise ValueError(f"there is no system call table for {machine}; there are {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[machine]
    special = dict(_SPECIAL)
    if not namespaces:
        special |= _WITHOUT_NAMESPACES
        for name in _TO_THE_FIRST:
            del special[name]
    lines = [
        _Line(_LOAD, _ARCH),
        _Line(_EQUAL, architecture.audit, no="end"),
        _Line(_LOAD, _NUMBER),
        _Line(_GREATER_EQUAL, architecture.last + 1, yes="absent"),  # the x32 calls too
        *_tree(_intervals(architecture, special), "t"),
        *_rules(architecture.numbers, special),
        *_returns(),
    ]
    return _assemble(lines)


def _returns() -> list[_Line]:
    return [
        _Line(_RETURN, ALLOW, label="allow"),
        _Line(_RETURN, KILL, label="end"),
        _Line(_RETURN, REFUSE, label="refuse"),
        _Line(_RETURN, ABSENT, label="absent"),
        _Line(_RETURN, DONE, label="done"),
    ]


def _intervals(architecture: Architecture, special: Mapping[str, list[_Line]]) -> list[tuple[int, str]]:
    """(first number, label) of runs of calls with the same treatment, ascending from 0."""
    treatment = {}
    for action, names in _PLAIN.items():
        for name in names.split():
            if name in architecture.numbers:
                treatment[architecture.numbers[name]] = _TREATMENTS[action]
    for name in special:
        treatment[architecture.numbers[name]] = name
    found: list[tuple[int, str]] = []
    for number in range(architecture.last + 1):
        label = treatment.get(number, "allow")
        if not found or found[-1][1] != label:
            found.append((number, label))
    return found


def _tree(intervals: Sequence[tuple[int, str]], name: str) -> list[_Line]:
    """A binary search over the call's number, so that the common calls cost a handful of instructions."""
    if len(intervals) == 1:
        return [_Line(_JUMP, yes=intervals[0][1], label=name)]
    middle = len(intervals) // 2
    return [
        _Line(_GREATER_EQUAL, intervals[middle][0], yes=name + "r", label=name),
        *_tree(intervals[:middle], name + "l"),
        *_tree(intervals[middle:], name + "r"),
    ]


def _argument(index: int) -> _Line:
    """Loads the low half of an argument (both machines are little-endian)."""
    return _Line(_LOAD, _ARGUMENTS + 8 * index)


def _no_new_namespaces() -> list[_Line]:
    return [_argument(0), _Line(_AND, _NEW_NAMESPACES), _Line(_EQUAL, 0, yes="allow", no="refuse")]


def _only_unix() -> list[_Line]:
    return [_argument(0), _Line(_EQUAL, _AF_UNIX, yes="allow", no="refuse")]


def _only_itself(argument: int = 0) -> list[_Line]:
    """By process id 0, which is the caller: other runs of the same user have ids too."""
    return [_argument(argument), _Line(_EQUAL, 0, yes="allow", no="refuse")]


def _only_itself_of_processes() -> list[_Line]:
    """setpriority(2) and ioprio_set(2): (which, who, ...); PRIO_PROCESS is 0, IOPRIO_WHO_PROCESS 1."""
    return [_argument(0), _Line(_GREATER_EQUAL, 2, yes="refuse"), *_only_itself(1)]


def _only_unix_and_tcp() -> list[_Line]:
    return [
        _argument(0),
        _Line(_EQUAL, _AF_UNIX, yes="allow"),
        _Line(_EQUAL, _AF_INET, yes="stream"),
        _Line(_EQUAL, _AF_INET6, no="refuse"),
        _Line(_LOAD, _ARGUMENTS + 8, label="stream"),
        _Line(_AND, _SOCK_TYPE_MASK),
        _Line(_EQUAL, _SOCK_STREAM, no="refuse"),
        _argument(2),
        _Line(_EQUAL, 0, yes="allow"),
        _Line(_EQUAL, _IPPROTO_TCP, yes="allow", no="refuse"),
    ]


def _no_terminal_injection() -> list[_Line]:
    return [_argument(1), _Line(_EQUAL, _TIOCSTI, yes="refuse"), _Line(_EQUAL, _TIOCLINUX, yes="refuse", no="allow")]


def _no_hidden_shared_memory() -> list[_Line]:
    """Shared anonymous pages outlive their mapping unseen: multiprocessing uses files in the scratch instead."""
    return [
        _argument(3),
        _Line(_AND, _MAP_SHARED_ANONYMOUS),
        _Line(_EQUAL, _MAP_SHARED_ANONYMOUS, yes="refuse", no="allow"),
    ]


def _plain_personality() -> list[_Line]:
    return [_argument(0), _Line(_EQUAL, 0, yes="allow"), _Line(_EQUAL, _PERSONALITY_QUERY, yes="allow", no="refuse")]


def _deadly_to_the_first(signal_argument: int, group: str = "") -> list[_Line]:
    """The first process of a PID namespace ignores deadly signals from within: such a call ends its caller instead."""
    own_group = [_Line(_EQUAL, 0, yes=group)] if group else []
    return [
        _argument(0),
        *own_group,
        _Line(_EQUAL, 1, no="allow"),
        _Line(_LOAD, _ARGUMENTS + 8 * signal_argument, label=group or None),
        *[_Line(_EQUAL, number, yes="end") for number in _DEADLY],
        _Line(_JUMP, yes="allow"),
    ]


_SPECIAL: Mapping[str, list[_Line]] = {
    "clone": _no_new_namespaces(),
    "unshare": _no_new_namespaces(),
    "socket": _only_unix_and_tcp(),
    "socketpair": _only_unix(),
    "ioctl": _no_terminal_injection(),
    "mmap": _no_hidden_shared_memory(),
    "personality": _plain_personality(),
    "kill": _deadly_to_the_first(1, "own group"),
    "tkill": _deadly_to_the_first(1),
    "tgkill": _deadly_to_the_first(2),
    "rt_sigqueueinfo": _deadly_to_the_first(1),
    "rt_tgsigqueueinfo": _deadly_to_the_first(2),
}


_TO_THE_FIRST = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")

_WITHOUT_NAMESPACES: Mapping[str, list[_Line]] = {
    "socket": _only_unix(),
    "prlimit64": _only_itself(),
    "sched_setparam": _only_itself(),
    "sched_setscheduler": _only_itself(),
    "sched_setaffinity": _only_itself(),
    "sched_setattr": _only_itself(),
    "setpriority": _only_itself_of_processes(),
    "ioprio_set": _only_itself_of_processes(),
}


def _rules(numbers: Mapping[str, int], special: Mapping[str, list[_Line]]) -> list[_Line]:
    lines = []
    for name, rule in special.items():
        if name in numbers:
            first = rule[0]
            lines += [_Line(first.code, first.k, first.yes, first.no, name), *rule[1:]]
    return lines


def _assemble(lines: Sequence[_Line]) -> bytes:
    """Conditional jumps reach 255 instructions; where a label may be farther, a long jump stands behind the test."""
    wide: list[_Line] = []
    for line in lines:
        if line.code not in (_EQUAL, _GREATER_EQUAL):
            wide.append(line)
            continue
        yes_skips, no_skips = (0, 1) if line.yes else (1, 0)
        if line.yes and line.no:
            wide.append(_Line(line.code, line.k, "+0", "+1", line.label))
            wide += [_Line(_JUMP, yes=line.yes), _Line(_JUMP, yes=line.no)]
        else:
            wide.append(_Line(line.code, line.k, f"+{yes_skips}", f"+{no_skips}", line.label))
            wide.append(_Line(_JUMP, yes=line.yes or line.no))
    places: dict[str, int] = {}
    for index, line in enumerate(wide):
        if line.label and places.setdefault(line.label, index) != index:
            raise ValueError(f"two places of the filter are called {line.label}")
    packed = []
    for index, line in enumerate(wide):
        if line.code == _JUMP:
            distance = places[line.yes or ""] - index - 1
            if distance < 0:
                raise ValueError(f"the filter jumps back to {line.yes}")
            packed.append(struct.pack("=HBBI", _JUMP, 0, 0, distance))
        else:
            yes, no = (int((skip or "+0")[1:]) for skip in (line.yes, line.no))
            packed.append(struct.pack("=HBBI", line.code, yes, no, line.k))
    return b"".join(packed)
