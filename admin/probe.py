"""Does it work, from end to end: a handler is registered, an event that only it matches is sent, its run is waited for."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import grpc
import typer
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from admin import desk
from admin.say import fail, out
from schemas.contracts import hook_names
from schemas.encoding import cloud_event_headers, encode
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import EventProcessingServiceStub
from telemetry.settings import from_environment

HANDLERS = Path(__file__).with_name("probe.json")
"""By runtime, in base64, the pickle of `def simple(**kwargs): return "x"`; tests/registry/make_pickles.py made them."""
HOOK = hook_names()[0]
CALL_S, LOOK_EVERY_S, FLUSH_S = 30.0, 1.0, 30.0
GOES_ON = ("queued", "running", "reported")


class ProbeSettings(BaseSettings):
    """Where the users' service is, and whose key is used."""

    model_config = SettingsConfigDict(env_prefix="PROBE_")

    registry: str = Field(description="host:port of the users' service")
    registry_ca: Path | None = Field(None, description="PEM file of its CA; none: no TLS")
    api_key_file: Path = Field(description="file with a user's API key, which BTrDB takes as well")


def probe(
    runtime: Annotated[str, typer.Option(help="that the handler runs in")] = "py3.11",
    timeout: Annotated[float, typer.Option(help="seconds that its run may take")] = 180.0,
) -> None:
    """Registers a handler that does nothing, sends an event that only it matches, waits for its run, removes it. No email."""
    settings = from_environment(ProbeSettings)
    known = json.loads(HANDLERS.read_text())
    if runtime not in known:
        raise fail(f"--runtime: {runtime} has no handler for this; there are {', '.join(known)}", 2)
    with _registry(settings) as registry:
        try:
            _run(registry, base64.b64decode(known[runtime]), runtime, timeout)
        except grpc.RpcError as error:
            raise fail(f"the registry at {settings.registry}: {error.code().name}: {error.details()}") from error


@contextmanager
def _registry(settings: ProbeSettings) -> Iterator[_Registry]:
    try:
        key = settings.api_key_file.read_text().strip()
        ca = settings.registry_ca.read_bytes() if settings.registry_ca else None
    except OSError as error:
        raise fail(f"{error.filename} cannot be read: {error.strerror}", 2) from error
    if ca is None:
        channel = grpc.insecure_channel(settings.registry)
    else:
        channel = grpc.secure_channel(settings.registry, grpc.ssl_channel_credentials(ca))
    with channel:
        yield _Registry(EventProcessingServiceStub(channel), (("authorization", f"Bearer {key}"),))


class _Registry:
    """The users' service, with a user's key."""

    def __init__(self, stub: EventProcessingServiceStub, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self._stub, self._metadata = stub, metadata

    def register(self, name: str, blob: bytes, runtime: str) -> api.RegisterResponse:
        what = api.Registration(
            name=name, hook=HOOK, tags=[name], blob=blob, python_version=runtime.removeprefix("py"),
            options=api.Options(notify="none", description="made by eventproc-admin probe, which removes it"),
        )  # fmt: skip
        return self._stub.Register(api.RegisterRequest(registration=what), metadata=self._metadata, timeout=CALL_S)

    def remove(self, number: int) -> None:
        self._stub.Deregister(api.DeregisterRequest(id=number), metadata=self._metadata, timeout=CALL_S)

    def run_of(self, number: int) -> api.RunLine | None:
        """The newest run of that handler."""
        wanted = api.ListRunsRequest(handler=api.HandlerRef(id=number), limit=1)
        return next(iter(self._stub.ListRuns(wanted, metadata=self._metadata, timeout=CALL_S).runs), None)


def _run(registry: _Registry, blob: bytes, runtime: str, timeout_s: float) -> None:
    name = f"probe-{uuid.uuid4()}"
    answer = registry.register(name, blob, runtime)
    out.print(f"registered {name} as handler {answer.handler.id}: {answer.check}")
    try:
        request_id = _send(name)
        out.print(f"sent event {request_id}")
        begun = time.monotonic()
        run = _wait(registry, answer.handler.id, begun + timeout_s)
    finally:
        registry.remove(answer.handler.id)
    if run is None:
        raise fail(f"the event has made no run within {timeout_s:g} s: is a dispatcher there, and ready?")
    if run.state in GOES_ON:
        raise fail(
            f"run {run.id} is still {run.state} after {timeout_s:g} s: is an executor of {runtime} there, and ready?"
        )
    if run.state != "succeeded":
        raise fail(f"run {run.id} has {run.state}: {run.error}")
    out.print(f"run {run.id} has succeeded, {time.monotonic() - begun:.1f} s after its event")


def _send(tag: str) -> str:
    request_id, now = str(uuid.uuid4()), datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {
        "DataSets": [],
        "File": "probe",
        "RequestID": request_id,
        "SubmittedAt": now,
        "Tags": [tag],
        "Recordings": [],
    }
    with desk.broker() as broker:
        producer = broker.producer()
        desk.book(broker).publish([(HOOK, HOOK)])
        headers = cloud_event_headers(HOOK, request_id, "/eventproc-admin/probe", now)
        producer.send(HOOK, encode(HOOK, event), key=request_id.encode(), headers=headers)
        producer.flush(FLUSH_S)
    return request_id


def _wait(registry: _Registry, handler: int, until: float) -> api.RunLine | None:
    while True:
        run = registry.run_of(handler)
        if (run is not None and run.state not in GOES_ON) or time.monotonic() >= until:
            return run
        time.sleep(LOOK_EVERY_S)
