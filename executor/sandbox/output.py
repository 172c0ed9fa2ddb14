"""What a handler printed: read without end, kept up to a limit, head and tail."""

from __future__ import annotations

from collections.abc import Callable

from executor.sandbox.mask import Mask
from executor.sandbox.protocol import clean

LONGEST = 1 << 16
"""Bytes of a line that is passed on while its handler runs."""


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


class Lines:
    """Passes on what is printed while it is printed: whole lines, the key masked, as text() of all of it will have them."""

    def __init__(self, mask: Mask, tell: Callable[[str], bool]) -> None:
        """tell: takes lines with their ends, a carriage return being one; says whether it wants more."""
        self._mask = mask
        self._tell = tell
        self._rest = bytearray()
        self._wanted = True

    def add(self, data: bytes) -> None:
        """Takes what was read. After a line of more than LONGEST nothing more is passed on."""
        if not self._wanted:
            return
        self._rest += data
        end = max(self._rest.rfind(b"\n"), self._rest.rfind(b"\r")) + 1
        if end:
            self._wanted = self._tell(self._mask(_text(bytes(self._rest[:end]))))
            del self._rest[:end]
        if len(self._rest) > LONGEST or not self._wanted:
            self._wanted = False
            self._rest.clear()


def _text(data: bytes) -> str:
    return clean(data.decode("utf-8", "backslashreplace"))
