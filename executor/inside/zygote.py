"""The zygote: builds the root once, imports what handlers need, then forks a child for each run and buries it."""

import errno
import importlib
import io
import os
import random
import select
import signal
import socket
import struct
import sys
import time
import types
from typing import Any, Collection, Dict, List, Optional, Tuple

from . import child, frames, keeper, kernel, settle, steps


def main(control: socket.socket, proc: int, plan: Dict[str, Any]) -> None:
    """Runs until the executor closes the control socket (frames.Gone) or a step fails."""
    own_pid_namespace = os.open("self/ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    context = steps.Context(proc)
    try:
        off = steps.apply(plan["prepare"], context)
    except steps.Failed as failure:
        frames.send(control, failure.message())
        return
    child.WARNED.install()
    _fresh_main()
    _text_streams()
    began = time.time()
    imported, missing = _warm(plan["warm"])
    context.open_rules(plan["isolate"])
    os.environ.clear()
    os.environ.update(plan["environment"])
    huge = settle.settle(proc)
    frames.send(
        control,
        {
            "kind": "warm",
            "off": off,
            "imported": imported,
            "missing": missing,
            "huge": huge,
            "seconds": time.time() - began,
            "threads": len(os.listdir(os.path.join("/proc/self/task"))) if os.path.isdir("/proc/self/task") else 0,
        },
    )
    # where the kernel lets no fresh /proc be mounted the children have an empty one
    isolate = [step for step in plan["isolate"] if step["call"] != "proc" or "proc" not in off]
    Zygote(control, own_pid_namespace, context, isolate, plan["keep"], plan["endpoint"]).serve()


def _fresh_main() -> None:
    """Old pickles name their globals as __main__'s: an empty module there, before dill remembers it."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]


def _text_streams() -> None:
    """Lines reach the log as they are printed; libraries keep these objects, so children only swap the descriptors."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = io.FileIO(number, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)


def _warm(names: List[str]) -> Tuple[List[str], Dict[str, str]]:
    imported, missing = [], {}
    for name in names:
        try:
            importlib.import_module(name)
            imported.append(name)
        except Exception as error:  # noqa: BLE001 - a broken package is the runtime's fault, and is told
            missing[name] = "%s: %s" % (type(error).__name__, error)
    return imported, missing


BORN = b'{"kind": "born", "id": %d}'
DEAD = b'{"kind": "dead", "id": %d, "status": %d, "cpu_ms": %d, "rss": %d}'


class Zygote(object):
    """Forks and buries. Control messages in: spawn (with the channel and the log's pipe). Out: born (with a pidfd), dead."""

    def __init__(
        self,
        control: socket.socket,
        own_pid_namespace: int,
        context: steps.Context,
        isolate: List[Dict[str, Any]],
        keep: Optional[List[Dict[str, Any]]],
        endpoint: Optional[str],
    ) -> None:
        """keep: the steps of each run's keeper; None: each run's first process is that of its own PID namespace."""
        self._control = control
        self._own_pid_namespace = own_pid_namespace
        self._context = context
        self._isolate = isolate
        self._keep = keep
        self._endpoint = endpoint
        self._alive: Dict[int, Tuple[int, int]] = {}  # pidfd -> (pid, id)
        self._next, self._stride = struct.unpack("II", os.urandom(8))
        self._stride |= 1
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> None:
        """Turns until the control socket ends, which raises frames.Gone."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._control.fileno():
                    message, descriptors = frames.receive(self._control)
                    self._spawn(message, descriptors)
                elif descriptor in self._alive:
                    self._bury(descriptor)

    def _spawn(self, message: Dict[str, Any], descriptors: List[int]) -> None:
        channel, log = descriptors
        self._seed()
        if self._keep is None:
            kernel.unshare(kernel.CLONE_NEWPID)
        try:
            pid = os.fork()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise
            pid = -1
        if pid == 0:
            self._become(message, channel, log)
        if self._keep is None:
            # the next fork starts from here again; without it the kernel would put it in the first child's namespace
            kernel.setns(self._own_pid_namespace, kernel.CLONE_NEWPID)
        os.close(channel)
        os.close(log)
        if pid < 0:
            self._tell(DEAD % (message["id"], signal.SIGKILL, 0, 0))
            return
        pidfd = kernel.pidfd_open(pid)
        self._alive[pidfd] = (pid, message["id"])
        self._poll.register(pidfd, select.POLLIN)
        self._tell(BORN % message["id"], pidfd)

    def _become(self, message: Dict[str, Any], channel: int, log: int) -> None:
        """In the forked process; never returns."""

        def begin() -> None:
            child.main(self._context, self._isolate, self._endpoint, channel, log, message)

        if self._keep is None:
            begin()
        else:
            keeper.main(self._context, self._keep, channel, begin)

    def _bury(self, pidfd: int) -> None:
        pid, number = self._alive[pidfd]
        buried, status, usage = os.wait4(pid, os.WNOHANG)
        if not buried:
            return
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._alive[pidfd]
        if self._keep is not None:
            bury_orphans([one for one, _ in self._alive.values()])
        cpu_ms = int((usage.ru_utime + usage.ru_stime) * 1000)
        self._tell(DEAD % (number, status, cpu_ms, usage.ru_maxrss * 1024))

    def _tell(self, text: bytes, *descriptors: int) -> None:
        frames.send_packed(self._control, frames.framed(text), descriptors)

    def _seed(self) -> None:
        """Children of one zygote must not draw the same numbers: each inherits a generator with a seed that no other has.

        random seeds itself anew after a fork since 3.7. A whole number of 32 bits is what numpy takes up fastest by far.
        """
        self._next = (self._next + self._stride) % 2**32  # odd: it comes back only after all others
        if sys.version_info < (3, 7):
            random.seed()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(self._next)


def bury_orphans(known: Collection[int]) -> None:
    """Ends what came to this process because its keeper, or its zygote, was killed: children that are not known."""
    strays = True
    while strays:
        strays = False
        for pid in kernel.children(os.getpid()):
            if pid not in known:
                strays = True
                os.kill(pid, signal.SIGKILL)  # it stays a zombie until we wait: no other process can have this id
                os.waitpid(pid, 0)
