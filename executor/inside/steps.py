"""The steps that the executor's plan is made of, by name. Each does one thing and fails by saying which step it was."""

import base64
import os
import resource
import socket
import stat
from typing import Any, Callable, Dict, List

from . import frames, kernel

SCRATCH = "/tmp"
PACKAGES = "/packages"
OF_CHILD = (SCRATCH, "/proc", "/proc/self", PACKAGES)  # each child's own: mounted anew, or its own folder


HAND_OVER = {has: frames.packed({"kind": "hand_over", "listener": has}) for has in (False, True)}


class Failed(Exception):
    """A step that could not be done."""

    def __init__(self, step: Dict[str, Any], error: BaseException) -> None:
        Exception.__init__(self, "%s: %s" % (step["name"], error))
        self.step = step
        self.why = str(error)

    def message(self) -> Dict[str, Any]:
        """For the executor."""
        return {"kind": "broken", "step": self.step["name"], "layer": self.step["layer"], "why": self.why}


class Context(object):
    """What steps hand to one another: proc, the host's /proc; what is open for Landlock; this child's channel and listener."""

    def __init__(self, proc: int) -> None:
        self.proc = proc
        self.rules: List[Any] = []
        self.filters: Dict[str, kernel.Filter] = {}
        self.channel: Any = None
        self.listener: Any = None
        self.packages = ""  # the name of the folder that this child sees at PACKAGES
        self.scratch = SCRATCH  # where there are no mounts each run has a folder instead
        self.scratch_bytes = 8 * 1024 * 1024  # of the zygote; a child gets its own

    def open_rules(self, plan: List[Dict[str, Any]]) -> None:
        """Opens Landlock's paths and lays out the filter once, in the zygote; children only add and install them."""
        for step in plan:
            if step["call"] == "seccomp":
                program = step["given"]["program"]
                self.filters[program] = kernel.Filter(base64.b64decode(program))
            if step["call"] == "landlock":
                for path, rights in step["given"]["paths"]:
                    if path not in OF_CHILD and os.path.exists(path):
                        descriptor = os.open(path, kernel.O_PATH | os.O_CLOEXEC)
                        self.rules.append((descriptor, _possible(descriptor, rights)))


def _possible(descriptor: int, rights: int) -> int:
    """Rights on directories make no sense on a file, and the kernel refuses them there. Source: landlock(7)."""
    return rights if stat.S_ISDIR(os.fstat(descriptor).st_mode) else rights & 0b1100000000000111


def apply(plan: List[Dict[str, Any]], context: Context) -> Dict[str, str]:
    """Does the steps in order. Returns the optional ones that failed, layer -> why. Raises Failed for any other."""
    off = {}
    for step in plan:
        try:
            CALLS[step["call"]](context, **step["given"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the step could not be done
            if not step["optional"]:
                raise Failed(step, error)
            off[step["layer"]] = "%s: %s" % (step["name"], error)
    return off


# Once, in the zygote


def _private_mounts(context: Context) -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def _root(
    context: Context,
    at: str,
    folders: List[str],
    files: Dict[str, str],
    links: Dict[str, str],
    binds: List[List[str]],
    devices: List[str],
) -> None:
    kernel.mount("root", at, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=16m,mode=0755")
    os.umask(0o022)
    for folder in folders:
        os.makedirs(at + folder, exist_ok=True)
    for path, text in files.items():
        os.makedirs(os.path.dirname(at + path), exist_ok=True)
        with open(at + path, "w") as file:
            file.write(text)
    for path, target in links.items():
        os.makedirs(os.path.dirname(at + path), exist_ok=True)
        os.symlink(target, at + path)
    for source, target in binds:
        _bind(source, at + target)
        kernel.restrict_mount(at + target, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV)
    for device in devices:
        _bind(device, at + device)
        kernel.restrict_mount(at + device, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    # with what is mounted beneath: the kernel lets no less privileged namespace look under a mount
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _proc(context: Context, at: str) -> None:
    kernel.mount("proc", at, "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RDONLY)


def _enter(context: Context, at: str) -> None:
    kernel.pivot_root(at)
    kernel.restrict_mount("/", kernel.ATTR_NOSUID)
    kernel.mount(None, "/", None, 32 | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)


def _hostname(context: Context, name: str) -> None:
    kernel.sethostname(name)


# In each child


def _session(context: Context, niceness: int, apart: bool) -> None:
    if apart:
        os.setsid()
    else:
        os.setpgid(0, 0)
    os.nice(niceness)
    # the zygote's own is shared by all: flags and owner that one run sets on it, the next would find
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)


def _unshare(context: Context, flags: int) -> None:
    kernel.unshare(flags)


def _scratch(context: Context, folders: List[str], links: Dict[str, str], user: int) -> None:
    options = "size=%d,nr_inodes=%d,mode=0700,uid=%d,gid=%d" % (
        context.scratch_bytes,
        max(1024, context.scratch_bytes // 8192),
        user,
        user,
    )
    kernel.mount("scratch", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for folder in folders:
        os.mkdir(folder, 0o755)
        os.chown(folder, user, user)
    for path, target in links.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)


def _network(context: Context, addresses: List[str], listen: Any) -> None:
    kernel.loopback(addresses)
    if listen is not None:
        context.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        context.listener.bind((listen[0], listen[1]))
        context.listener.listen(64)


def _packages(context: Context, of_all: str, at: str, empty: str) -> None:
    if context.packages:
        kernel.mount(of_all + "/" + context.packages, at, None, kernel.MS_BIND)
    kernel.mount(empty, of_all, None, kernel.MS_BIND)


def _hand_over(context: Context) -> None:
    scratch = os.open(context.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    descriptors = [scratch] if context.listener is None else [scratch, context.listener.fileno()]
    frames.send_packed(context.channel, HAND_OVER[context.listener is not None], descriptors)
    os.close(scratch)
    if context.listener is not None:
        context.listener.close()


def _user(context: Context, user: int) -> None:
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)


def _user_namespace(context: Context, flags: int, inner: int, outer: int) -> None:
    kernel.unshare(flags)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", "%d %d 1\n" % (inner, outer)),
        ("gid_map", "%d %d 1\n" % (inner, outer)),
    ):
        descriptor = os.open("self/" + name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=context.proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def _capabilities(context: Context) -> None:
    kernel.drop_capabilities()


def _subreaper(context: Context) -> None:
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


def _fence_signals(context: Context, scoped: int) -> None:
    kernel.landlock_restrict(kernel.landlock_create(0, 0, scoped, 24))


def _no_new_privileges(context: Context) -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _rlimits(context: Context, limits: Dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))


def _landlock(
    context: Context, files: int, network: int, scoped: int, size: int, paths: List[Any], ports: List[Any]
) -> None:
    ruleset = kernel.landlock_create(files, network, scoped, size)
    for descriptor, rights in context.rules:
        kernel.landlock_path(ruleset, rights, descriptor)
    for path, rights in paths:
        if path in OF_CHILD and (path != PACKAGES or context.packages):
            own = context.scratch if path == SCRATCH else path
            kernel.landlock_path(ruleset, rights, os.open(own, kernel.O_PATH | os.O_CLOEXEC))
    for port, rights in ports:
        kernel.landlock_port(ruleset, rights, port)
    kernel.landlock_restrict(ruleset)


def _descriptors(context: Context) -> None:
    """All but standard input, output, error and the channel; the zygote's own go with them."""
    channel = context.channel.fileno()
    kernel.close_range(3, channel - 1)
    kernel.close_range(channel + 1, 0x7FFFFFFF)
    os.chdir(context.scratch + "/home")


def _seccomp(context: Context, program: str) -> None:
    kernel.seccomp(context.filters[program])


CALLS: Dict[str, Callable[..., None]] = {
    "packages": _packages,
    "private_mounts": _private_mounts,
    "root": _root,
    "proc": _proc,
    "enter": _enter,
    "hostname": _hostname,
    "session": _session,
    "unshare": _unshare,
    "scratch": _scratch,
    "network": _network,
    "hand_over": _hand_over,
    "user": _user,
    "user_namespace": _user_namespace,
    "capabilities": _capabilities,
    "subreaper": _subreaper,
    "fence_signals": _fence_signals,
    "no_new_privileges": _no_new_privileges,
    "rlimits": _rlimits,
    "landlock": _landlock,
    "descriptors": _descriptors,
    "seccomp": _seccomp,
}
