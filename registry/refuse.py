"""Refusals and failures -> gRPC codes with a text to act on; the one place that maps them, for both services."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from callers import UnknownKey
from ledger.handlers import NoSuchHandler, NotOwner
from ledger.replay import CannotReplay
from ledger.versions import NoSuchVersion, WaitsForKey
from schemas.errors import TryLater
from telemetry import metrics

log = structlog.get_logger()

CLEANED = {"text", "source", "file_name", "lacking"}
"""Fields for what people and programs print, and for names in a pickle's code: they may hold any sign."""

Method = TypeVar("Method", bound=Callable[..., Any])


class Refusal(Exception):
    """What the caller asked for is not to be had as it was asked; text says why and what would be right."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def unauthenticated(cls, text: str) -> Refusal:
        """Who is it?"""
        return cls(grpc.StatusCode.UNAUTHENTICATED, text)

    @classmethod
    def denied(cls, text: str) -> Refusal:
        """Not this caller."""
        return cls(grpc.StatusCode.PERMISSION_DENIED, text)

    @classmethod
    def missing(cls, text: str) -> Refusal:
        """No such thing."""
        return cls(grpc.StatusCode.NOT_FOUND, text)

    @classmethod
    def invalid(cls, field: str, text: str) -> Refusal:
        """A field that is wrong: what it is and what would be right."""
        return cls(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {text}")


def answered(method: Method) -> Method:
    """Wraps a servicer's unary or streaming method: counts and times it, turns what it raises into a gRPC status."""

    @functools.wraps(method)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        began = time.monotonic()
        code = grpc.StatusCode.OK
        try:
            _check_texts(request)
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - mapped to a status, unexpected ones logged with a number
            code, text = _status(method.__name__, error)
            context.abort(code, text)
        finally:
            metrics.grpc_requests_total.labels(method=method.__name__, code=code.name).inc()
            metrics.grpc_seconds.labels(method=method.__name__).observe(time.monotonic() - began)

    return wrapped  # type: ignore[return-value]


def _check_texts(message: Message, within: str = "") -> None:
    """Raises Refusal for a NUL in a text, which PostgreSQL has no place for; where it is taken out later it may stand."""
    for field, given in message.ListFields():
        if field.name in CLEANED:
            continue
        several = not isinstance(given, (str, Message))
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for number, part in enumerate(given if several else [given]):
            where = f"{within}{field.name}{f'[{number}]' if several else ''}"
            if isinstance(part, Message):
                _check_texts(part, f"{where}.")
            elif "\0" in part:
                raise Refusal.invalid(where, f"{part[:60]!r} has a control character, NUL; it should have none")


def _status(method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, Refusal):
        log.info("refused", method=method, code=error.code.name, reason=error.text)
        return error.code, error.text
    if isinstance(error, UnknownKey):
        log.info("refused", method=method, code="UNAUTHENTICATED", reason=str(error))
        return grpc.StatusCode.UNAUTHENTICATED, str(error)
    if isinstance(error, NotOwner):
        return grpc.StatusCode.PERMISSION_DENIED, f"{error}; only they or an admin may change it"
    if isinstance(error, WaitsForKey):
        return grpc.StatusCode.FAILED_PRECONDITION, f"{error}; rekey(conn) with a key that is good resumes it"
    if isinstance(error, CannotReplay):
        return grpc.StatusCode.FAILED_PRECONDITION, str(error)
    if isinstance(error, NoSuchVersion):
        return grpc.StatusCode.NOT_FOUND, str(error)
    if isinstance(error, NoSuchHandler):
        return grpc.StatusCode.NOT_FOUND, f"{error}; list_handlers() shows those there are"
    if isinstance(error, TryLater):
        log.warning("unavailable", method=method, reason=error.reason)
        return (
            grpc.StatusCode.UNAVAILABLE,
            f"event processing is busy or restarting; try again in a moment ({error.reason})",
        )
    number = uuid.uuid4().hex[:12]
    log.error("internal error", method=method, number=number, exc_info=error)
    return (
        grpc.StatusCode.INTERNAL,
        f"internal error {number}; the operator finds it in the registry's log under this number",
    )
