"""Errors named by what must happen next. Anything that is neither stops the process, and its supervisor restarts it."""


class InvalidMessage(Exception):
    """The message cannot be read and never will be: it goes to the dead letters.

    reason: what was wrong, where, and what would be right, in one sentence.
    data: the bytes as received (b'' when there were none).
    """

    def __init__(self, reason: str, data: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data


class TryLater(Exception):
    """Something that the work depends on is away or busy: back off, then do the same work again.

    reason: which dependency, and what it said.
    after_s: the least time to wait in seconds, when the other side named one.
    """

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s
