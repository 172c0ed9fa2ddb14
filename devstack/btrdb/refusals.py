"""What BTrDB answers instead of data: its status codes, as the public client maps them to exceptions."""

from __future__ import annotations


class Refusal(Exception):
    """The call cannot be done; code is BTrDB's status code, text says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


NO_SUCH_POINT = 401
NO_SUCH_STREAM = 404
INVALID_COLLECTION = 407
INVALID_TAG_KEY = 408
INVALID_TAG_VALUE = 409
INVALID_TIME_RANGE = 413
INSERT_TOO_BIG = 414
INVALID_POINT_WIDTH = 415
STREAM_EXISTS = 417
AMBIGUOUS_STREAM = 418
WRONG_ARGS = 421
ANNOTATION_VERSION_MISMATCH = 423
BAD_VALUE = 425
INVALID_VERSIONS = 427
RECYCLED_UUID = 429
BAD_SQL_VALUE = 441
VERSION_NOT_AVAILABLE = 450
NOT_IMPLEMENTED = 501


def no_such_stream() -> Refusal:
    """The refusal of a stream that is not there."""
    return Refusal(NO_SUCH_STREAM, "stream does not exist")
