"""A link from an email -> the file, for who has an API key. A file is never shown, always saved: it is a stranger's."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from callers import ApiKeys, Caller, UnknownKey, bearer
from ledger import Ledger, audit
from ledger.files import FileView, file_of
from objectstore import ObjectStore
from schemas.errors import TryLater
from schemas.records import stored_name
from telemetry import metrics

log = structlog.get_logger()

CODE = re.compile(r"[0-9a-f]{32}")
ASK = 'Basic realm="API key as password", charset="UTF-8"'
PLAIN_KINDS = re.compile(r"(image/(png|jpeg|gif|webp)|text/(plain|csv)|application/(json|pdf|zip|gzip|x-hdf5|vnd\..+))")
"""Told as what they are; anything else, HTML and SVG above all, only as bytes."""


@dataclass(frozen=True)
class Desk:
    """What the service needs.

    owner_only: a link works for the file's owner and for admins only; max_age_s: then a file is gone; None: never.
    """

    ledger: Ledger
    keys: ApiKeys
    store: ObjectStore
    owner_only: bool
    max_age_s: float | None


def make_app(desk: Desk) -> Starlette:
    """The ASGI application: GET /<32 hex digits>."""

    def download(request: Request) -> Response:
        caller = _caller(desk.keys, request)
        file = _file(desk, caller, request.path_params["code"])
        chunks = desk.store.chunks(stored_name(file.run_id, file.code))
        try:
            first = next(chunks, b"")
        except FileNotFoundError:
            raise HTTPException(404, f"{file.name} is not in the storage any more") from None
        if request.method == "GET":
            _note(desk, caller, file, request)
        metrics.downloads_total.labels(code="200").inc()
        log.info("downloaded", code=file.code, run_id=file.run_id, by=caller.user, size=file.size)
        body: Iterator[bytes] = iter(()) if request.method == "HEAD" else _joined(first, chunks)
        return StreamingResponse(body, media_type=_kind(file.name), headers=_headers(file))

    app = Starlette(routes=[Route("/{code}", download, methods=["GET"])])
    _answer_problems(app)
    return app


def _caller(keys: ApiKeys, request: Request) -> Caller:
    """By 'Bearer <key>', or, from a browser that was asked, by Basic with the key as password."""
    key = bearer(request.headers.items())
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise UnknownKey("the Authorization header cannot be read") from None
        key = password or user
    if not key:
        raise UnknownKey("give your API key: as password, or as Authorization: Bearer <API key>")
    return keys.of_key(key)


def _file(desk: Desk, caller: Caller, code: str) -> FileView:
    with desk.ledger.read() as session:
        file = file_of(session, code) if CODE.fullmatch(code) else None
    if file is None:
        raise HTTPException(404, "there is no such file; a link works once its run has ended")
    if desk.owner_only and not (caller.admin or caller.user == file.owner):
        raise HTTPException(403, f"the file is {file.owner}'s; only they or an admin may load it")
    if file.removed or (desk.max_age_s is not None and file.age_s > desk.max_age_s):
        kept = f": files are kept for {desk.max_age_s / 86_400:g} days" if desk.max_age_s is not None else ""
        raise HTTPException(410, f"{file.name} is gone{kept}")
    return file


def _note(desk: Desk, caller: Caller, file: FileView, request: Request) -> None:
    who = audit.person(caller.user, caller.admin, request.client.host if request.client else "")
    told = {"name": file.name, "owner": file.owner, "run": file.run_id, "size": file.size}
    with desk.ledger.write() as session:
        audit.note(session, who, audit.Act.DOWNLOAD, audit.FILE, file.code, **told)


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _kind(name: str) -> str:
    kind, packed = mimetypes.guess_type(name)
    return kind if kind and not packed and PLAIN_KINDS.fullmatch(kind) else "application/octet-stream"


def _headers(file: FileView) -> dict[str, str]:
    name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", file.name) or "file"
    plain = re.sub(r"[^\x20-\x7e]|[\"%]", "_", name)
    return {  # the name in both forms: RFC 6266, section 4.3
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{urllib.parse.quote(name, safe='')}",
        "Content-Length": str(file.size),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
    }


def _answer_problems(app: Starlette) -> None:
    def told(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
        metrics.downloads_total.labels(code=str(status)).inc()
        return PlainTextResponse(text + "\n", status, headers)

    def unknown(_request: Request, error: Exception) -> Response:
        return told(401, str(error), {"WWW-Authenticate": ASK})

    def away(_request: Request, error: Exception) -> Response:
        assert isinstance(error, TryLater)
        log.warning("not served", reason=error.reason)
        return told(503, "files cannot be loaded just now; try again soon", {"Retry-After": "10"})

    def other(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return told(error.status_code, str(error.detail))

    app.add_exception_handler(UnknownKey, unknown)
    app.add_exception_handler(TryLater, away)
    app.add_exception_handler(HTTPException, other)
