"""The launcher: enters a user namespace, starts the zygote as the first process of its own, and lives as long as the executor."""

import json
import os
import select
import signal
import socket
import sys
from typing import Any, Dict, List

from . import describe, frames, kernel, zygote


def main(arguments: List[str]) -> None:
    """describe: prints the runtime as JSON; else two descriptors: the control socket and the lifeline."""
    if arguments == ["describe"]:
        sys.stdout.write(json.dumps(describe.runtime()))
        return
    control = socket.socket(fileno=int(arguments[0]))
    lifeline = int(arguments[1])
    asked, _ = frames.receive(control)
    _stand_back(asked["niceness"])
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if asked["namespaces"]:
            kernel.unshare(asked["namespaces"])
        else:  # what the zygote's death leaves behind comes to us
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        frames.send(control, {"kind": "broken", "step": "user namespace", "layer": "namespaces", "why": str(error)})
        sys.exit(1)
    frames.send(control, {"kind": "unshared"})
    plan, _ = frames.receive(control)  # the executor has mapped our ids
    child = os.fork()
    if child == 0:
        _become_zygote(control, lifeline, proc, plan)
    control.close()
    os.close(proc)
    _watch(child, lifeline)


def _stand_back(niceness: int) -> None:
    """This session, with all runs in it, comes after others: a niceness counts within a session only (sched(7), autogroup).

    A kernel without autogroups, or a container whose processors are shared out by control groups, goes by the runs' own.
    """
    try:
        with open("/proc/self/autogroup", "w") as file:
            file.write(str(niceness))
    except OSError:
        pass


def _become_zygote(control: socket.socket, lifeline: int, proc: int, plan: Dict[str, Any]) -> None:
    # the launcher's death is ours; should it have died already, the lifeline has ended too
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    status = 1
    try:
        if not select.select([lifeline], [], [], 0)[0]:
            os.close(lifeline)
            zygote.main(control, proc, plan)
            status = 0
    except frames.Gone:
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def _watch(child: int, lifeline: int) -> None:
    """Ends the zygote with the executor (whose end of the lifeline closes) and itself with the zygote."""
    ended = kernel.pidfd_open(child)
    ready = select.select([lifeline, ended], [], [])[0]
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    zygote.bury_orphans(())
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
