"""Archives over HTTP: POST stores, checks and answers at once; the work is done in the background; GET tells how far it is."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Header, HTTPException, Query, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as HttpError
from swagger_ui_bundle import swagger_ui_path

from callers import UnknownKey
from ctingress.accept import LONGEST_NAME, Asked, Desk, OtherUpload, accept
from ctingress.ingest import tags_of
from ctingress.pack import Received
from ctingress.refuse import BadArchive
from ctingress.when import check_zone
from ledger import archives
from ledger.archives import ArchiveView
from schemas.errors import TryLater
from telemetry import metrics

log = structlog.get_logger()

LONGEST_TAG, MOST_TAGS, LONGEST_ONCE = 200, 100, 255
PARAMETERS = ("tags", "name", "prefix", "timezone")
_FORM = "multipart/form-data"
"""Any other content type is the archive itself: curl's --data-binary says application/x-www-form-urlencoded."""
_CHUNK = 1 << 20
_TAGS = "comma-separated, or given several times; handlers with one of them run"
_KEY = HTTPBearer(scheme_name="key", description="an API key", auto_error=False)
"""For the page's Authorize; who calls is found out by callers.ApiKeys."""


class DataSetState(BaseModel):
    """One recording of the archive. Success is null until it has been read."""

    Name: str
    Success: bool | None
    Error: str


class ArchiveState(BaseModel):
    """An uploaded archive. State: waiting, working, published (its event is out, handlers run) or failed."""

    RequestID: str
    State: str
    Error: str = Field(description="why it failed, or what it waits for")
    File: str
    Tags: list[str]
    Size: int
    SHA256: str
    SubmittedAt: str
    Tries: int
    DataSets: list[DataSetState]


def make_app(desk: Desk) -> FastAPI:
    """The ASGI application."""
    app = FastAPI(
        title="COMTRADE ingress", version="1", docs_url=None, redoc_url=None, description=__doc__, dependencies=[Security(_KEY)]
    )  # fmt: skip
    app.mount("/docs/static", StaticFiles(directory=swagger_ui_path), name="static")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        at = "/docs/static/"
        return get_swagger_ui_html(
            openapi_url="/openapi.json", title=app.title, swagger_js_url=at + "swagger-ui-bundle.js",
            swagger_css_url=at + "swagger-ui.css", swagger_favicon_url=at + "favicon-32x32.png",
        )  # fmt: skip

    @app.post(
        "/v1/archives", status_code=202, response_model=ArchiveState, openapi_extra=_BODY, responses=_BEFORE | _PROBLEMS,
        summary="Upload an archive",
    )  # fmt: skip
    async def upload(
        request: Request,
        tags: Annotated[list[str], Query(default_factory=list, description=_TAGS)],
        name: str = Query("", description="the archive's name, when the body is the archive itself"),
        prefix: str = Query("", description="put before collections, for recorders with placeholder names"),
        timezone: str = Query("", description="of recorders that do not tell theirs: America/New_York, +02:00"),
        idempotency_key: str | None = Header(None, description="the same key again gives the first RequestID again"),
    ) -> JSONResponse:
        """A zip (.zip, .zic), tar (.tar, .tar.gz, .tar.xz, .tar.bz2) or CFF as body, or as form file; a CFG and its DAT as two form files.

        Answered when it has been stored and checked; 202 for a new one, 200 for one that was uploaded before.
        """
        caller = await run_in_threadpool(desk.keys.caller, request.headers.items())
        asked = Asked(tags_of(",".join(tags)), name, prefix, timezone.strip(), idempotency_key)
        _check_given(request)
        _check(asked)
        with tempfile.TemporaryDirectory(prefix="ctingress-") as folder:
            files = await _receive(request, Path(folder), asked.name, desk.max_upload)
            view, new = await run_in_threadpool(accept, desk, caller, asked, files, Path(folder))
        where = {"Location": f"/v1/archives/{view.request_id}"}
        code = 202 if new else 200
        metrics.uploads_total.labels(code=str(code)).inc()
        return JSONResponse(_state(view).model_dump(), code, where)

    @app.get(
        "/v1/archives/{request_id}", response_model=ArchiveState, responses=_PROBLEMS, summary="How far it is"
    )  # fmt: skip
    def state(request: Request, request_id: uuid.UUID) -> ArchiveState:
        """The archive's state and each of its data sets; for its uploader and for admins."""
        caller = desk.keys.caller(request.headers.items())
        with desk.ledger.read() as session:
            view = archives.get(session, str(request_id))
        if view is None or not (caller.admin or caller.user == view.owner):
            raise HTTPException(404, f"there is no archive {request_id} of yours")
        return _state(view)

    _answer_problems(app)
    return app


def _check_given(request: Request) -> None:
    """Nothing that was given is lost: an archive without its tags runs other handlers. Raises HTTPException 400."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    unknown = sorted(given.keys() - set(PARAMETERS))
    if unknown:
        raise HTTPException(400, f"{unknown[0][:60]}: there is no such parameter; there are {', '.join(PARAMETERS)}")
    given["Idempotency-Key"] = len(request.headers.getlist("idempotency-key"))
    for name, times in given.items():
        if times > 1 and name != "tags":
            raise HTTPException(400, f"{name}: is given {times} times; give it once")


def _check(asked: Asked) -> None:
    if len(asked.tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in asked.tags):
        raise HTTPException(400, f"tags: at most {MOST_TAGS} of at most {LONGEST_TAG} characters are taken")
    _check_text("tags", ",".join(asked.tags))
    for what, text, longest in (
        ("name", asked.name, LONGEST_NAME),
        ("prefix", asked.prefix, LONGEST_NAME),
        ("Idempotency-Key", asked.once or "", LONGEST_ONCE),
    ):
        if len(text) > longest:
            raise HTTPException(400, f"{what}: has {len(text)} characters; at most {longest} are taken")
        _check_text(what, text)
    if asked.once is not None and not asked.once.strip():
        raise HTTPException(400, "Idempotency-Key: is empty; leave it out or give one")
    if asked.timezone:
        try:
            check_zone(asked.timezone)
        except ValueError as error:
            raise HTTPException(400, f"timezone: {error}") from error


def _check_text(what: str, text: str) -> None:
    for sign in text:
        if sign < " " or sign == "\x7f":
            raise HTTPException(400, f"{what}: has a control character (U+{ord(sign):04X}); leave it out")


async def _receive(request: Request, folder: Path, name: str, most: int) -> list[Received]:
    """The upload's files, in folder. Raises HTTPException 413 as soon as there is too much."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise HTTPException(413, f"the upload has {told} bytes; at most {most} are taken")
    if not request.headers.get("content-type", "").lower().startswith(_FORM):
        path = folder / "0"
        got = 0
        with path.open("wb") as out:
            async for chunk in request.stream():
                got += len(chunk)
                if got > most:
                    raise HTTPException(413, f"the upload has more than {most} bytes; no more are taken")
                out.write(chunk)
        return [Received(_last(name), path)] if got else []
    files = []
    async with Request(request.scope, _counted(request, most)).form(max_files=16) as form:
        for number, (field, part) in enumerate(form.multi_items()):
            if not isinstance(part, UploadFile):
                raise HTTPException(
                    400, f"{field[:60]}: a form has files alone; the rest stands in the address, as in ?tags=a,b"
                )
            path = folder / str(number)
            with path.open("wb") as out:
                while chunk := await part.read(_CHUNK):
                    out.write(chunk)
            _check_text(f"{field[:60]}: the file's name", part.filename or "")
            files.append(Received(_last(part.filename or name), path))
    return files


def _last(path: str) -> str:
    """A file's own name: some browsers send its whole path."""
    return re.split(r"[/\\]", path)[-1]


def _counted(request: Request, most: int) -> Callable[[], Any]:
    got = 0

    async def receive() -> Any:
        nonlocal got
        message = await request.receive()
        got += len(message.get("body", b""))
        if got > most:
            raise HTTPException(413, f"the upload has more than {most} bytes; no more are taken")
        return message

    return receive


def _state(view: ArchiveView) -> ArchiveState:
    return ArchiveState(
        RequestID=view.request_id,
        State=view.state,
        Error=view.error,
        File=view.file_name,
        Tags=list(view.tags),
        Size=view.size,
        SHA256=view.digest,
        SubmittedAt=view.submitted_at,
        Tries=view.tries,
        DataSets=[DataSetState(**data_set) for data_set in view.data_sets],
    )


def _answer_problems(app: FastAPI) -> None:
    """Errors as RFC 9457 problem details, each with what would be right."""

    def problem(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        if request.method == "POST":
            metrics.uploads_total.labels(code=str(status)).inc()
        return JSONResponse({"status": status, "detail": detail}, status, headers, "application/problem+json")

    @app.exception_handler(UnknownKey)
    def unknown(request: Request, error: UnknownKey) -> JSONResponse:
        text = f"{error} (Authorization: Bearer <API key>)"
        return problem(request, 401, text, {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(BadArchive)
    def bad(request: Request, error: BadArchive) -> JSONResponse:
        return problem(request, 422, f"the archive {error}; nothing was stored")

    @app.exception_handler(OtherUpload)
    def other_upload(request: Request, error: OtherUpload) -> JSONResponse:
        return problem(request, 422, str(error))

    @app.exception_handler(OSError)  # this machine's disk
    @app.exception_handler(TryLater)
    def away(request: Request, error: OSError | TryLater) -> JSONResponse:
        log.warning("not taken", reason=str(error))
        return problem(request, 503, "uploads cannot be stored just now; try again soon", {"Retry-After": "10"})

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return problem(request, 400, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HttpError)
    def other(request: Request, error: HttpError) -> JSONResponse:
        return problem(request, error.status_code, str(error.detail), dict(error.headers or {}))


_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": {"schema": _BINARY},
            "application/gzip": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "array", "items": _BINARY}}}
            },
        },
    },
}
_BEFORE: dict[int | str, dict[str, Any]] = {200: {"model": ArchiveState, "description": "it was uploaded before"}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "a parameter is wrong"},
    401: {"description": "no API key, or one that is not known"},
    404: {"description": "no such archive of yours"},
    413: {"description": "too large"},
    422: {"description": "not an archive that can be read, or the Idempotency-Key of another upload"},
    503: {"description": "ledger or storage are away; try again"},
}
