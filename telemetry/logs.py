"""Logs: JSON lines on stderr, the same for our own and for libraries' messages, with secrets masked."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
MASK = "***"
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:api[_-]?key|token|password|passwd|secret|authorization|credential|seal[_-]?key)s?$", re.I
)
# The signs that may stand in a token (RFC 6750 section 2.1) hold no quote, so a rendered JSON line stays JSON.
_SECRET_TEXTS = (
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]+", re.I), rf"\1 {MASK}"),
    (re.compile(r"\b(api[_-]?key|token|password|passwd|secret)(\s*[=:]\s*)[^\s\"'\\,;&)}]+", re.I), rf"\1\2{MASK}"),
    (re.compile(r"(\w://[^\s/:@\"]*):[^\s/@\"]+@"), rf"\1:{MASK}@"),
)
# no space, = or ://, so none of the above: ids, names, times, by far the most of what is logged
_HARMLESS = re.compile(r"[\w.+-]*|[\d:TZ.-]*")


def setup(station: str) -> None:
    """Sends this process's logs to stderr, one JSON object a line: timestamp (UTC, RFC 3339), level, station, event, fields.

    Ours from EVENTPROC_LOG_LEVEL up (default INFO; raises ValueError for an unknown one), libraries' (kafka, grpc, sqlalchemy)
    from WARNING up. What stops the process or one of its threads is logged too. May be called again: the last call counts.
    """
    level = os.environ.get("EVENTPROC_LOG_LEVEL", "INFO").upper()
    if level not in LEVELS:
        raise ValueError(f"EVENTPROC_LOG_LEVEL: {level!r} should be one of {', '.join(LEVELS)}")

    def name_station(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["station"] = station
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_station,
        structlog.processors.format_exc_info,
        _mask_fields,
    ]
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    sys.excepthook = _stopped
    threading.excepthook = lambda args: _stopped(args.exc_type, args.exc_value, args.exc_traceback)


def bound(**fields: object) -> AbstractContextManager[None]:
    """Within the block every log line of this thread carries the fields, for instance run_id, handler, request_id."""
    return structlog.contextvars.bound_contextvars(**fields)


def masked(text: str) -> str:
    """The text without what looks like a secret: Bearer tokens, key=value pairs of secret names, passwords in URLs."""
    if _HARMLESS.fullmatch(text):
        return text
    for pattern, instead in _SECRET_TEXTS:
        text = pattern.sub(instead, text)
    return text


def _mask_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        event[key] = _without_secrets(key, value)
    return event


def _without_secrets(key: object, value: Any) -> Any:
    if value is not None and isinstance(key, str) and _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {k: _without_secrets(k, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets("", v) for v in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return masked(str(value) if isinstance(value, BaseException) else repr(value))


_render = structlog.processors.JSONRenderer(ensure_ascii=False)


def _stopped(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    info = (kind, error if error is not None else kind(), trace)
    structlog.get_logger().error("stopped by an error", thread=threading.current_thread().name, exc_info=info)
