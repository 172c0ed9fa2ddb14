"""What a handler printed: read without end, kept up to a limit, head and tail."""

from __future__ import annotations

from executor.sandbox.mask import Mask
from executor.sandbox.protocol import clean


class Output:
    """Keeps the first and the last half of a limit in bytes; what is between is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0
        self.limit = limit

    def add(self, data: bytes) -> None:
        """Takes what was read."""
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._half :]
        if len(self._tail) > 4 * self._half:
            del self._tail[: -self._half]

    def text(self, mask: Mask) -> tuple[str, bool]:
        """(the log with the key masked, whether something was left out)."""
        tail = bytes(self._tail[-self._half :])
        dropped = self.total - len(self._head) - len(tail)
        if not dropped:
            return mask(_text(bytes(self._head) + tail)), False
        note = f"\n... {dropped} bytes left out ...\n"
        return mask.head(_text(bytes(self._head))) + note + mask.tail(_text(tail)), True


def _text(data: bytes) -> str:
    return clean(data.decode("utf-8", "backslashreplace"))
