"""Frames on a stream socket: 4 bytes of length (big-endian), then JSON or raw bytes; descriptors ride on the first byte."""

import array
import json
import socket
import struct
from typing import Any, Dict, List, Sequence, Tuple


class Gone(Exception):
    """The other side has closed the socket."""


def send(sock: socket.socket, body: Dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Sends a JSON body with descriptors; blocks."""
    send_packed(sock, packed(body), descriptors)


def channel(descriptor: int) -> socket.socket:
    """The stream socket of a descriptor, without the questions that socket.socket asks the kernel when it is told nothing."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)


def packed(body: Dict[str, Any]) -> bytes:
    """The frame of a JSON body."""
    return framed(json.dumps(body).encode("ascii"))


def framed(data: bytes) -> bytes:
    """The frame of a body that is JSON already."""
    return len(data).to_bytes(4, "big") + data


def send_packed(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Sends a frame that was made before, with descriptors; blocks."""
    if not descriptors:
        sock.sendall(data)
        return
    rights = struct.pack("%di" % len(descriptors), *descriptors)
    sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    if sent < len(data):
        sock.sendall(data[sent:])


def receive(sock: socket.socket) -> Tuple[Dict[str, Any], List[int]]:
    """The next JSON body and the descriptors that came with it; blocks. Raises Gone."""
    head, ancillary, _, _ = sock.recvmsg(4, socket.CMSG_SPACE(16 * 4))
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    head += _exactly(sock, 4 - len(head))
    body = _exactly(sock, int.from_bytes(head, "big"))
    return json.loads(body.decode("utf-8")), list(descriptors)


def receive_raw(sock: socket.socket) -> bytes:
    """The next frame's bytes; blocks. Raises Gone."""
    return _exactly(sock, int.from_bytes(_exactly(sock, 4), "big"))


def _exactly(sock: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = sock.recv_into(view)
        if not count:
            raise Gone("the executor is gone")
        view = view[count:]
    return bytes(buffer)
