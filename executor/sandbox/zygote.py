"""A zygote as the executor sees it: starts it, asks it for children, learns of their deaths, and ends it for sure."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from executor.sandbox import filesystem, landlock, namespaces, plan, pod, protocol
from executor.sandbox.environment import CA_BUNDLE, SCRATCH, zygote_environment
from executor.sandbox.job import Access, RequirementsRefused, Runtime, SandboxLost, SandboxUnavailable
from executor.sandbox.levels import Level
from executor.sandbox.memory import Watch, pid_of
from executor.sandbox.own_folder import OwnFolder
from executor.sandbox.recycle import Age
from executor.sandbox.scratch import Folder, Folders, Mounted, Scratch

START_TIMEOUT_S = 60.0
CHILD_TIMEOUT_S = 20.0
PIPE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Death:
    """status: as wait(2) gives it; cpu_s of the whole tree; max_rss in bytes, of the first process."""

    status: int
    cpu_s: float
    max_rss: int


@dataclass(eq=False)
class Child:
    """A child that is isolated and waits for its job. Its descriptors are this process's to close, by close().

    kept: by a keeper, whose pidfd it is; else it is the first process of its PID namespace.
    """

    number: int
    channel: socket.socket
    reader: protocol.Reader
    output: int
    scratch_bytes: int
    scratch_path: str = SCRATCH
    ca_bundle: str = CA_BUNDLE
    kept: bool = False
    pidfd: int = -1
    scratch: Scratch | None = None
    listener: socket.socket | None = None
    leave: list[Callable[[], None]] = field(default_factory=list)
    watch: Watch | None = None
    off: Mapping[str, str] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    death: Death | None = None
    lost: bool = False

    def kill(self) -> None:
        """Kills it and all that it started; returns at once.

        It is the first of its PID namespace, or it is the run's keeper, which does so when told to end.
        """
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGTERM if self.kept else signal.SIGKILL)

    def buried(self, timeout_s: float) -> Death:
        """How it died; blocks. Raises SandboxLost when its zygote died first or it does not die in time."""
        with self.changed:
            self.changed.wait_for(lambda: self.death is not None or self.lost, timeout_s)
            if self.death is not None:
                return self.death
        raise SandboxLost("the zygote died" if self.lost else f"the child did not die within {timeout_s:g} s")

    def close(self) -> None:
        """Closes what is open; leaves the relay, whose the listener is once it was admitted, and its control group."""
        while self.leave:
            self.leave.pop()()
        self.reader.close()
        self.channel.close()
        if self.listener is not None:
            self.listener.close()
        for descriptor in (self.output, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        if self.scratch is not None:
            self.scratch.close()


class Zygote:
    """One zygote process, from start() to close() or to its death."""

    def __init__(
        self, runtime: Runtime, access: Access, level: Level = Level.NAMESPACES, scratch_dir: Path | None = None
    ) -> None:
        """level: POD for the steps without namespaces, any other for those with them.

        scratch_dir: where runs without mounts have their folders; None: the system's folder for temporary files.
        """
        self._runtime = runtime
        self._access = access
        self._level = level
        self._scratch_dir = Path(tempfile.gettempdir()) if scratch_dir is None else scratch_dir
        self._folders: Folders | None = None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._children: dict[int, Child] = {}
        self._said: deque[bytes] = deque(maxlen=64)
        self._staging: OwnFolder | None = None
        self._lifeline = -1
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.alive = False
        self.off: dict[str, str] = {}
        """Layers that cannot be had, and why."""
        self.imported: tuple[str, ...] = ()
        self.huge_bytes = 0
        """Of its heap, gathered in huge pages when it was warm."""
        self.version = ""

    def start(self) -> None:
        """Starts it and waits until it is warm; blocks for seconds. Raises SandboxUnavailable naming layer, step and setting."""
        described = filesystem.describe(self._runtime)
        self.version = described.version
        made = self._plan = self._make_plan(described)
        self.off = dict(made.off)
        self._spawn_launcher()
        assert self._control is not None and self._process is not None
        self._control.settimeout(START_TIMEOUT_S)
        reader = protocol.Reader(self._control)
        self._ask(reader, {"kind": "enter", "namespaces": made.namespaces, "niceness": plan.NICENESS}, "unshared")
        try:
            if made.namespaces:
                namespaces.write_maps(self._process.pid, bool(made.user))
        except OSError as error:
            self._fail("namespaces", f"mapping users: {error}", plan.USER_NAMESPACES)
        warm = self._ask(reader, made.wire(), "warm")
        self._learn(warm)
        self._control.settimeout(None)
        self.age = Age(self._process.pid)
        self.alive = True
        threading.Thread(target=self._listen, args=(reader,), name="zygote", daemon=True).start()

    def _make_plan(self, described: filesystem.Described) -> plan.Plan:
        # without mounts there is no showing a run its requirements alone
        access = replace(self._access, packages=None) if self._level is Level.POD else self._access
        built = filesystem.root(described, access)
        nobody, machine, abi = namespaces.may_map_nobody(), platform.machine(), landlock.abi()
        try:
            if self._level is Level.POD:
                self._folders = Folders(self._scratch_dir)
                return pod.make(built, access, nobody, machine, abi)
            self._staging = OwnFolder("eventproc-root-")
            return plan.make(built, access, str(self._staging.path), nobody, machine, abi)
        except ValueError as error:
            raise SandboxUnavailable("seccomp", str(error), "Run the executor on one of these machines.") from error

    def spawn(self, scratch_bytes: int, packages: str = "") -> Child:
        """A child, isolated and ready for a job; blocks for milliseconds. Raises SandboxLost, SandboxUnavailable.

        packages: the folder of Access.packages that it sees.
        """
        if packages and self._level is Level.POD:
            raise RequirementsRefused("this executor's sandbox (level pod) cannot show a handler its requirements")
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # beyond the user's share of pipe memory the default size does
            import fcntl

            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        child = Child(next(self._numbers), ours, protocol.Reader(ours), output, scratch_bytes)
        message: dict[str, Any] = {"kind": "spawn", "id": child.number, "scratch_bytes": scratch_bytes}
        message["packages"] = packages
        try:
            if self._folders is not None:
                message |= self._give_folder(child, self._folders)
            with self._lock:
                if not self.alive or self._control is None:
                    raise SandboxLost("the zygote died")
                self._children[child.number] = child
                protocol.send(self._control, message, [theirs.fileno(), their_output])
        except OSError as error:
            child.close()
            raise SandboxLost(f"the zygote died: {error}") from error
        except SandboxLost:
            child.close()
            raise
        finally:
            theirs.close()
            os.close(their_output)
        try:
            self._wait_ready(child)
        except BaseException:
            child.kill()
            child.close()
            raise
        return child

    def _give_folder(self, child: Child, folders: Folders) -> dict[str, str]:
        """A folder instead of mounts, a keeper instead of a PID namespace."""
        folder = folders.make(self._plan.user)
        child.scratch, child.scratch_path, child.ca_bundle = folder, str(folder.tmp), self._plan.ca_bundle
        child.kept = True
        if self._access.endpoint is None:
            return {"scratch": child.scratch_path}
        child.listener = folder.listen()
        return {"scratch": child.scratch_path, "route": str(folder.route)}

    def busy(self) -> bool:
        """Whether it has children, at work or waiting."""
        return bool(self._children)

    @property
    def base(self) -> str:
        """The layer that all others stand on."""
        return "keeper" if self._level is Level.POD else "namespaces"

    def setting_for(self, layer: str) -> str:
        """What helps when a layer is missing."""
        return self._plan.setting_for("", layer)

    def close(self) -> None:
        """Kills the zygote and with it every child; blocks for a moment."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
        if self._staging is not None:
            self._staging.close()
            self._staging = None
        if self._folders is not None:
            self._folders.close()
            self._folders = None

    def _spawn_launcher(self) -> None:
        ours, theirs = socket.socketpair()
        read_end, self._lifeline = os.pipe2(os.O_CLOEXEC)
        said, says = os.pipe2(os.O_CLOEXEC)
        descriptors = (theirs.fileno(), read_end)
        command = [str(self._runtime.python), "-s", "-B", str(filesystem.INSIDE), *map(str, descriptors)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=says,
            stderr=says,
            pass_fds=descriptors,
            env=dict(zygote_environment()),
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        os.close(read_end)
        os.close(says)
        self._control = ours
        threading.Thread(target=self._hear, args=(said,), name="zygote-log", daemon=True).start()

    def _hear(self, said: int) -> None:
        with os.fdopen(said, "rb") as stream:
            for line in iter(lambda: stream.readline(4096), b""):
                self._said.append(line)

    def _ask(self, reader: protocol.Reader, body: Mapping[str, Any], wanted: str) -> dict[str, Any]:
        """Sends and waits for one answer, before the zygote's thread runs."""
        assert self._control is not None
        try:
            protocol.send(self._control, body)
            frames: list[dict[str, Any]] = []
            while not frames and not reader.ended:
                frames = reader.read()
        except (OSError, protocol.Malformed) as error:
            self._fail(
                self.base, f"the zygote does not answer: {error or 'too slow'}: {self._last_words()}", plan.KERNEL
            )
        if not frames:
            self._fail(self.base, f"the zygote ended while starting: {self._last_words()}", plan.KERNEL)
        answer = frames[0]
        if answer["kind"] == "broken":
            step, layer = str(answer.get("step")), str(answer.get("layer"))
            self._fail(layer, f"{step}: {answer.get('why')}", self._plan.setting_for(step, layer))
        if answer["kind"] != wanted:
            self._fail(self.base, f"the zygote said {answer['kind']!r} instead of {wanted!r}", plan.KERNEL)
        return answer

    def _learn(self, warm: Mapping[str, Any]) -> None:
        off, imported = warm.get("off"), warm.get("imported")
        if isinstance(off, dict):
            self.off |= {str(layer): str(why) for layer, why in off.items()}
        self.imported = tuple(str(name) for name in imported) if isinstance(imported, list) else ()
        self.huge_bytes = protocol.number_of(warm, "huge")
        missing = warm.get("missing")
        self.missing = {str(k): str(v) for k, v in missing.items()} if isinstance(missing, dict) else {}
        needed = ("dill", *(["btrdb"] if self._access.endpoint is not None else []))
        for name in needed if self._access.index is None else ():
            if name not in self.imported:
                why = self.missing.get(name, "not found")
                self._fail("runtime", f"{self._runtime.python} cannot import {name}: {why}", f"Install {name} in it.")

    def _fail(self, layer: str, why: str, setting: str) -> None:
        self.close()
        raise SandboxUnavailable(layer, why, setting)

    def _last_words(self) -> str:
        time.sleep(0.05)  # its last lines may still be in the pipe
        return b"".join(self._said).decode("utf-8", "replace")[-1500:]

    def _wait_ready(self, child: Child) -> None:
        """Reads the child's hand-over and its word that it is isolated."""
        child.channel.settimeout(CHILD_TIMEOUT_S)
        ready = False
        while not ready:
            try:
                frames = child.reader.read()
            except (TimeoutError, protocol.Malformed) as error:
                raise SandboxLost(f"a child did not become ready: {error}") from error
            if child.reader.ended:
                raise SandboxLost(f"a child died before it was ready: {self._last_words()}")
            for message in frames:
                if message["kind"] == "broken":
                    step, layer = str(message.get("step")), str(message.get("layer"))
                    raise SandboxUnavailable(
                        layer, f"{step}: {message.get('why')}", self._plan.setting_for(step, layer)
                    )
                if message["kind"] == "hand_over":
                    self._take_scratch(child, child.reader.take_descriptor())
                    if message.get("listener"):
                        child.listener = socket.socket(fileno=child.reader.take_descriptor())
                if message["kind"] == "ready":
                    child.off = {str(k): str(v) for k, v in dict(message.get("off") or {}).items()}
                    ready = True
        child.channel.setblocking(False)
        with child.changed:
            if not child.changed.wait_for(lambda: child.pidfd >= 0 or child.lost, CHILD_TIMEOUT_S) or child.lost:
                raise SandboxLost("the zygote died")
        assert child.scratch is not None
        child.watch = Watch(pid_of(child.pidfd), child.scratch, keeper=child.kept)

    def _take_scratch(self, child: Child, descriptor: int) -> None:
        if isinstance(child.scratch, Folder):
            os.close(descriptor)
        else:
            child.scratch = Mounted(descriptor)

    def _listen(self, reader: protocol.Reader) -> None:
        try:
            while not reader.ended:
                for message in reader.read():
                    self._take(message, reader)
        except (OSError, protocol.Malformed, ValueError):
            self.close()
        with self._lock:
            self.alive = False
            lost = list(self._children.values())
            self._children.clear()
        for child in lost:
            with child.changed:
                child.lost = True
                child.changed.notify_all()

    def _take(self, message: Mapping[str, Any], reader: protocol.Reader) -> None:
        number = protocol.number_of(message, "id")
        if message["kind"] == "born":
            pidfd = reader.take_descriptor()
            child = self._children.get(number)
            if child is None:
                os.close(pidfd)
                return
            with child.changed:
                child.pidfd = pidfd
                child.changed.notify_all()
        elif message["kind"] == "dead":
            with self._lock:
                child = self._children.pop(number, None)
            if child is not None:
                death = Death(
                    protocol.number_of(message, "status"),
                    protocol.number_of(message, "cpu_ms") / 1000,
                    protocol.number_of(message, "rss"),
                )
                with child.changed:
                    child.death = death
                    child.changed.notify_all()
