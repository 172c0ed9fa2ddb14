"""Where a process works on archives: any number at a time, but those alone on which a worker was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Room:
    """What one archive does to the process it does to its neighbours: they must not be blamed for it again and again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        """Those that are alone inside, or wait to be: nobody else comes in before them."""

    @contextlib.contextmanager
    def entered(self, alone: bool) -> Iterator[None]:
        """Blocks until there is room."""
        with self._changed:
            if alone:
                self._alone += 1
                self._changed.wait_for(lambda: self._inside == 0)
            else:
                self._changed.wait_for(lambda: self._alone == 0)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone -= alone
                self._changed.notify_all()
