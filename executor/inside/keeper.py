"""The keeper: without a PID namespace, the parent of one run's processes. Orphans come to it; it ends them all and tells how."""

import os
import resource
import signal
from typing import Any, Callable, Dict, List, Optional

from . import frames, kernel, steps

_exit = os._exit

WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGXCPU)


def main(context: steps.Context, plan: List[Dict[str, Any]], channel: int, begin: Callable[[], None]) -> None:
    """Never returns. plan: its own steps; begin: what becomes of the run's first process, which never returns either.

    SIGTERM ends the run; SIGXCPU is handed on to its first process.
    """
    zygote = os.getppid()
    status = None
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            steps.apply(plan, context)
        except steps.Failed as failure:
            frames.send(frames.channel(channel), failure.message())
            _exit(1)
        fenced = _fenced(zygote)
        first = os.fork()
        if first == 0:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            begin()
        kernel.close_range(3, 0x7FFFFFFF)
        status = _until_over(first)
        _end_all(fenced)
    finally:
        _die_as(status)


def _fenced(zygote: int) -> bool:
    """Whether this process can signal nobody but its own offspring, as Landlock's signal scope has it: tried on the zygote."""
    if os.getppid() != zygote:
        return False
    try:
        os.kill(zygote, 0)
    except PermissionError:
        return True
    return False


def _until_over(first: int) -> Optional[int]:
    """The first process's status as wait(2) gives it; None when the run is to be ended. Buries orphans meanwhile."""
    more = True
    while True:
        # one burial at a time: those who die without end must not keep us from hearing that it is enough
        heard = signal.sigtimedwait(WATCHED, 0) if more else signal.sigwaitinfo(WATCHED)
        if heard is not None and heard.si_signo == signal.SIGTERM:
            return None
        if heard is not None and heard.si_signo == signal.SIGXCPU:
            os.kill(first, signal.SIGXCPU)
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        more = pid != 0
        if pid == first:
            # stopped is as good as dead, as where the filter ends it for that: nobody would wake it up
            return int(signal.SIGSYS) if os.WIFSTOPPED(status) else status


def _end_all(fenced: bool) -> None:
    """Kills and buries every process of the run, however they fork: kill(-1) is one act of the kernel's, within the fence."""
    while True:
        if fenced:
            try:
                os.kill(-1, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        else:
            for pid in kernel.offspring(os.getpid()):
                _kill(pid)
        try:
            while os.waitpid(-1, 0 if fenced else os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _die_as(status: Optional[int]) -> None:
    """Ends as the run's first process ended, so that who waits sees that."""
    if status is not None and os.WIFEXITED(status):
        _exit(os.WEXITSTATUS(status))
    number = signal.SIGKILL if status is None else os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)
    _exit(1)
