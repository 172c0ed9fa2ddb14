"""A child: isolates itself, waits for its one job, loads the pickle, calls the handler, says how it went, ends."""

import gc
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from typing import Any, Dict, List, Optional, Tuple

from . import call, connect, frames, install, kernel, route, steps, trace, uploads

_exit = os._exit  # a handler may put something else there

SPARE_BYTES = 48 * 1024 * 1024
"""Memory beyond the handler's own limit, in which the child tells that it ran out."""


LOADING, BEGUN = (frames.packed({"kind": kind}) for kind in ("loading", "begun"))


class TimeLimit(Exception):
    """Raised in the handler's main thread a little before it is killed for its time limit, so that it can clean up.

    No TimeoutError: that is an OSError, and libraries that wait for files and processes drop those.
    """

    __module__ = "builtins"  # so it is called in tracebacks as docs/handlers.md has it


class Warned(object):
    """The warning before the kill: a signal from outside that becomes an exception in the handler, once, while it runs."""

    def __init__(self) -> None:
        self.text = ""
        self.came = False
        self.running = False

    def install(self) -> None:
        """From now on SIGXCPU warns. SIGTERM keeps its meaning, for the workers that a handler forks and ends."""
        signal.signal(signal.SIGXCPU, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self.came = True
        if self.running:
            self.running = False
            raise TimeLimit(self.text)


WARNED = Warned()
"""The zygote's, which installs it; so is each child's, as it was at the fork."""


def main(
    context: steps.Context,
    isolate: List[Dict[str, Any]],
    endpoint: Optional[str],
    channel: int,
    log: int,
    asked: Dict[str, Any],
) -> None:
    """Never returns. endpoint: BTrDB's, None for none. channel, log: descriptors of a socket and a pipe.

    asked: scratch_bytes; packages, the name of the folder of requirements that it sees; and where a run has a folder instead of
    mounts that folder as scratch and its route to BTrDB.
    """
    status = 1
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        context.channel = frames.channel(channel)
        context.scratch_bytes = asked["scratch_bytes"]
        context.packages = asked.get("packages", "")
        context.scratch = asked.get("scratch", steps.SCRATCH)
        _isolate(context, isolate)
        if "route" in asked:
            route.install(endpoint, asked["route"])
        ahead = connect.Ahead(endpoint)
        ahead.open()
        status = _run(context.channel, ahead)
    except frames.Gone:
        status = 0
    except BaseException:  # noqa: BLE001 - it goes to the log, and the status tells
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        _exit(status)


def _isolate(context: steps.Context, plan: List[Dict[str, Any]]) -> None:
    try:
        off = steps.apply(plan, context)
    except steps.Failed as failure:
        frames.send(context.channel, failure.message())
        raise frames.Gone("a step failed")
    frames.send(context.channel, {"kind": "ready", "off": off})


def _run(channel: socket.socket, ahead: connect.Ahead) -> int:
    job, _ = frames.receive(channel)
    blob = frames.receive_raw(channel)
    os.environ.update(job["environment"])
    tempfile.tempdir = None  # as the zygote found it; TMPDIR says where it is now
    time.tzset()
    gc.enable()
    warned = WARNED
    warned.text = "the handler's time limit of %g s ends in %g s" % (job["wall_s"], job["warning_s"])
    base = _limit(job["rlimits"])
    try:
        answer = _answer(channel, ahead, job, blob, warned)
    except MemoryError as error:
        answer = _out_of_memory(error, base)
        uploads.send(channel, job["upload_limit"])
    frames.send(channel, answer)
    return 0


def rehearse(ours: socket.socket, theirs: socket.socket) -> None:
    """Goes, in the zygote, the way of a job's hand-over and end that changes nothing; both ends of a stream socket."""
    frames.send(ours, {"environment": {}, "rlimits": {"CORE": 0}, "text_limit": 100, "wall_s": 1.5, "install": None})
    ours.sendall(frames.framed(b"pickle"))
    job, _ = frames.receive(theirs)
    frames.receive_raw(theirs)
    os.environ.update(job["environment"])
    time.tzset()
    WARNED.text = "the handler's time limit of %g s ends in %g s" % (job["wall_s"], job["wall_s"])
    for name in job["rlimits"]:
        kind = getattr(resource, "RLIMIT_" + name)
        resource.setrlimit(kind, resource.getrlimit(kind))
    _held()
    _flush()
    frames.send(theirs, {"kind": "ended", "outcome": "succeeded", "text": "", "error": None}, [theirs.fileno()])
    for descriptor in frames.receive(ours)[1]:
        os.close(descriptor)


def _limit(limits: Dict[str, int]) -> int:
    """Sets this run's limits; DATA on top of what the process holds already. Returns DATA's hard limit."""
    held = _held()
    hard = 0
    for name, value in limits.items():
        if name == "MORE_PROCESSES":
            most = kernel.tasks_of_user() + value
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
            continue
        kind = getattr(resource, "RLIMIT_" + name)
        if name == "DATA":
            hard = value + held + SPARE_BYTES
            resource.setrlimit(kind, (value + held, hard))
        else:
            resource.setrlimit(kind, (value, value))
    return hard


def _held() -> int:
    """Bytes of private memory that this process has mapped; 0 where /proc is empty. Source: proc(5), statm."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    fields = os.read(descriptor, 200).split()
    os.close(descriptor)
    return int(fields[5]) * resource.getpagesize()


def _out_of_memory(error: BaseException, hard: int) -> Dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    told = trace.error_of(error)
    error.__traceback__ = None
    return {"kind": "ended", "outcome": "out_of_memory", "text": "", "error": told}


def _refused(text: str, error: Optional[BaseException] = None) -> Dict[str, Any]:
    told = trace.error_of(error) if error is not None else {"type": "Refused", "traceback": ""}
    told["message"] = text
    return {"kind": "ended", "outcome": "refused", "text": "", "error": told}


def _answer(
    channel: socket.socket, ahead: connect.Ahead, job: Dict[str, Any], blob: bytes, warned: Warned
) -> Dict[str, Any]:
    """Connects, loads, calls. Everything before 'loading' is sent by this code alone."""
    if job["install"]:
        frames.send_packed(channel, LOADING)
        return install.install(channel, job["install"], job["text_limit"])
    try:
        database = None if job["only_load"] else ahead.connect(job["api_key"], job["traceparent"])
    except connect.Away as error:
        return {"kind": "away", "why": str(error)}
    except connect.KeyRefused as error:
        return {"kind": "key_refused", "why": str(error)}
    frames.send_packed(channel, LOADING)
    if job["packages"]:
        install.show(steps.PACKAGES)
    try:
        handler = call.load(blob)
    except MemoryError:
        raise
    except call.Refused as error:
        return _refused(str(error), error.cause)
    given = dict(job["arguments"], btrdb=database)
    try:
        trace.show_source(handler, job["source"], job["first_line"])
        arguments = call.arguments(handler, given, [*job["documented"], "btrdb"])
    except call.Refused as error:
        return _refused(str(error))
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a callable object answers as it likes to what it is asked
        return _refused("the handler cannot be asked for its signature: %s" % trace.error_of(error)["message"], error)
    if job["only_load"]:
        lacking = ", ".join(call.lacking(handler))
        return {"kind": "ended", "outcome": "succeeded", "text": lacking[: job["text_limit"]], "error": None}
    frames.send_packed(channel, BEGUN)
    text, told = _call(handler, arguments, warned, job["text_limit"])
    _flush()
    uploads.send(channel, job["upload_limit"])
    outcome = "succeeded" if told is None else "timed_out" if warned.came else "failed"
    return {"kind": "ended", "outcome": outcome, "text": text, "error": told}


def _call(handler: Any, arguments: Dict[str, Any], warned: Warned, limit: int) -> Tuple[str, Optional[Dict[str, str]]]:
    """The handler's answer as a text, or its exception: whatever it raises, SystemExit and KeyboardInterrupt too."""
    try:
        try:
            warned.running = True
            text = call.text_of(handler(**arguments), limit)
        finally:
            warned.running = False
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything
        return "", trace.error_of(error)
    return text, None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException as error:  # noqa: BLE001 - the handler may have put anything there
            os.write(2, ("the log could not be flushed: %s\n" % type(error).__name__).encode("ascii", "replace"))
