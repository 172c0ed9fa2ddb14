"""The one way out of a sandbox: takes the connections to a run's listener on to BTrDB, for as long as the run lives."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger()

CHUNK = 256 * 1024
CONNECT_TIMEOUT_S = 10.0
CONNECTIONS = 32
"""Of one run at a time."""


@dataclass(eq=False)
class _Half:
    """One direction of a connection: what was read and not yet sent on."""

    source: socket.socket
    sink: socket.socket
    waiting: memoryview = field(default_factory=lambda: memoryview(b""))
    ended: bool = False


@dataclass(eq=False)
class _Pair:
    run: Admitted
    inner: socket.socket
    outer: socket.socket
    halves: dict[socket.socket, _Half] = field(default_factory=dict)  # by source

    def __post_init__(self) -> None:
        self.halves = {self.inner: _Half(self.inner, self.outer), self.outer: _Half(self.outer, self.inner)}


@dataclass(eq=False)
class Admitted:
    """A run's listener in the relay's care."""

    listener: socket.socket
    pairs: set[_Pair] = field(default_factory=set)
    connecting: int = 0
    gone: bool = False


class Relay:
    """One thread that copies bytes for all runs of a runtime, and a few that connect."""

    def __init__(self, host: str, port: int) -> None:
        """host, port: where BTrDB really is; a name is looked up for each connection."""
        self._address = (host, port)
        self._selector = selectors.DefaultSelector()
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._connectors = ThreadPoolExecutor(8, thread_name_prefix="relay-connect")
        self._thread = threading.Thread(target=self._turn_for_ever, name="relay", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Starts the thread."""
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()

    def admit(self, listener: socket.socket) -> Admitted:
        """Serves a listener, which the relay owns from now on, until it is dismissed."""
        run = Admitted(listener)
        listener.setblocking(False)
        self._do(lambda: self._listen(run))
        return run

    def serve(self, listener: socket.socket) -> Callable[[], None]:
        """Admits a listener; what comes back dismisses it."""
        admitted = self.admit(listener)
        return lambda: self.dismiss(admitted)

    def dismiss(self, run: Admitted) -> None:
        """Closes a run's listener and all its connections; returns at once."""
        self._do(lambda: self._dismiss(run))

    def close(self) -> None:
        """Ends the thread; connections still open are closed with it."""
        self._closed = True
        self._do(lambda: None)
        self._thread.join(5)
        self._connectors.shutdown(wait=False, cancel_futures=True)

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        os.eventfd_write(self._wake, 1)

    def _turn_for_ever(self) -> None:
        while not self._closed:
            for key, events in self._selector.select():
                if key.fd == self._wake:
                    os.eventfd_read(self._wake)
                elif isinstance(key.data, Admitted):
                    self._accept(key.data)
                elif isinstance(key.data, _Pair) and not key.data.run.gone:
                    self._copy(key.data, key.fileobj, events)  # type: ignore[arg-type]
            while self._commands:
                self._commands.popleft()()

    def _listen(self, run: Admitted) -> None:
        self._selector.register(run.listener, selectors.EVENT_READ, run)

    def _dismiss(self, run: Admitted) -> None:
        run.gone = True
        self._selector.unregister(run.listener)
        run.listener.close()
        for pair in list(run.pairs):
            self._drop(pair)

    def _accept(self, run: Admitted) -> None:
        try:
            inner, _ = run.listener.accept()
        except OSError:
            return  # it went away before we came
        if len(run.pairs) + run.connecting >= CONNECTIONS:
            inner.close()
            return
        run.connecting += 1
        self._connectors.submit(self._connect, run, inner)

    def _connect(self, run: Admitted, inner: socket.socket) -> None:
        outer: socket.socket | None = None
        try:
            outer = socket.create_connection(self._address, CONNECT_TIMEOUT_S)
            outer.setblocking(False)
            outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            log.warning("BTrDB cannot be reached", address=":".join(map(str, self._address)), reason=str(error))
        self._do(lambda: self._join(run, inner, outer))

    def _join(self, run: Admitted, inner: socket.socket, outer: socket.socket | None) -> None:
        run.connecting -= 1
        if outer is None or run.gone:
            inner.close()
            if outer is not None:
                outer.close()
            return
        inner.setblocking(False)
        if inner.family == socket.AF_INET:
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(run, inner, outer)
        run.pairs.add(pair)
        for sock in (inner, outer):
            self._selector.register(sock, selectors.EVENT_READ, pair)

    def _copy(self, pair: _Pair, sock: socket.socket, events: int) -> None:
        if pair not in pair.run.pairs:
            return  # dropped earlier in this turn
        try:
            if events & selectors.EVENT_READ:
                self._read(pair.halves[sock])
            if events & selectors.EVENT_WRITE:
                other = pair.outer if sock is pair.inner else pair.inner
                self._write(pair.halves[other])
        except OSError:
            self._drop(pair)
            return
        if all(half.ended and not half.waiting for half in pair.halves.values()):
            self._drop(pair)
            return
        for one in pair.halves:
            self._wait_for(pair, one)

    def _read(self, half: _Half) -> None:
        if half.waiting or half.ended:
            return
        data = half.source.recv(CHUNK)
        if data:
            half.waiting = memoryview(data)
        else:
            half.ended = True
        self._write(half)

    def _write(self, half: _Half) -> None:
        while half.waiting:
            try:
                sent = half.sink.send(half.waiting)
            except BlockingIOError:
                return
            half.waiting = half.waiting[sent:]
        if half.ended:
            half.sink.shutdown(socket.SHUT_WR)

    def _wait_for(self, pair: _Pair, sock: socket.socket) -> None:
        """Reads only what can be sent on, and waits for room only when there is something to send."""
        reading = pair.halves[sock]
        other = pair.outer if sock is pair.inner else pair.inner
        events = 0
        if not reading.ended and not reading.waiting:
            events |= selectors.EVENT_READ
        if pair.halves[other].waiting:
            events |= selectors.EVENT_WRITE
        registered = self._selector.get_map().get(sock)
        if registered is None:
            if events:
                self._selector.register(sock, events, pair)
        elif not events:
            self._selector.unregister(sock)
        elif registered.events != events:
            self._selector.modify(sock, events, pair)

    def _drop(self, pair: _Pair) -> None:
        pair.run.pairs.discard(pair)
        for sock in (pair.inner, pair.outer):
            if self._selector.get_map().get(sock) is not None:
                self._selector.unregister(sock)
            sock.close()
