"""Frames between the executor and what it does not trust: 4 bytes of length (big-endian), then JSON; descriptors beside them.

Everything read here may have been written by a handler: lengths, types and counts are checked, and nothing else is believed.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

MAX_FRAME = 4 * 1024 * 1024
MAX_DESCRIPTORS = 40
CHUNK = 64 * 1024
"""Read at a time: larger buffers are mapped and unmapped anew each time."""
_TRUNCATED = int(socket.MSG_CTRUNC)


class Malformed(Exception):
    """The other side broke the protocol; the text says how."""


def frame(body: Mapping[str, Any]) -> bytes:
    """The frame of a JSON body."""
    data = json.dumps(body).encode()
    return len(data).to_bytes(4, "big") + data


def raw_frame(data: bytes) -> bytes:
    """The frame of bytes that are no JSON (a pickle)."""
    return len(data).to_bytes(4, "big") + data


def send(sock: socket.socket, body: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Sends one frame to a trusted reader; blocks. Raises OSError when the other side is gone."""
    data = frame(body)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
    sent = sock.sendmsg([data], ancillary)
    sock.sendall(data[sent:])


class Reader:
    """Reads frames from a socket without trusting it; never blocks on a half frame.

    A frame's descriptors come in order: take_descriptor gives the next.
    """

    def __init__(self, sock: socket.socket, max_frame: int = MAX_FRAME) -> None:
        self._sock = sock
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self.ended = False

    def read(self) -> list[dict[str, Any]]:
        """What one recvmsg brought: whole frames, maybe none; sets ended at the end of the stream. Raises Malformed."""
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionResetError:
            data, ancillary, flags = b"", [], 0
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._descriptors.extend(fds)
        if flags & _TRUNCATED or len(self._descriptors) > MAX_DESCRIPTORS:
            raise Malformed("too many descriptors")
        if not data:
            self.ended = True
            if self._buffer:
                raise Malformed("the channel ended within a frame")
        self._buffer += data
        return self._frames()

    def _frames(self) -> list[dict[str, Any]]:
        found = []
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if length > self._max_frame:
                raise Malformed(f"a frame of {length} bytes; the limit is {self._max_frame}")
            if len(self._buffer) < 4 + length:
                break
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            try:
                value = json.loads(body.decode())
            except (ValueError, RecursionError) as error:
                raise Malformed("a frame that is no JSON") from error
            if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
                raise Malformed("a frame that is no message")
            found.append(value)
        return found

    def take_descriptor(self) -> int:
        """The next descriptor that came, the caller's to close. Raises Malformed when there is none."""
        if not self._descriptors:
            raise Malformed("a message without its descriptor")
        return self._descriptors.popleft()

    def close(self) -> None:
        """Closes the descriptors that nobody took; the socket is its owner's."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


def text_of(message: Mapping[str, Any], name: str, limit: int) -> str:
    """A text field, cleaned and cut to limit characters. Raises Malformed when it is no text."""
    value = message.get(name, "")
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return clean(value)[:limit]


def number_of(message: Mapping[str, Any], name: str) -> int:
    """An integer field within 0 .. 2**62. Raises Malformed when it is none."""
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise Malformed(f"{name} is no number")
    return value


def clean(text: str) -> str:
    """The text as valid UTF-8 without NUL (lone surrogates and NUL are shown escaped)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
