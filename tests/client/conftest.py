"""A server of the users' service over TLS, which keeps what it was sent and answers as it is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import dill
import grpc
import pytest

from btrdbextras import Connection
from devstack.certificates import make_certificates
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import (
    EventProcessingServiceServicer,
    add_EventProcessingServiceServicer_to_server,
)

KEY = "0123456789ABCDEF"


@dataclass
class Platform(EventProcessingServiceServicer):
    """refuse: the status of every call, unless None; handlers, notes, check, runtimes: what is answered; asked: each request.

    logs: what ReadLog answers, one after the other; a status instead of an answer refuses.
    """

    ca: Path
    endpoint: str = ""
    refuse: tuple[grpc.StatusCode, str] | None = None
    handlers: list[api.Handler] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    check: str = ""
    runtimes: list[str] = field(default_factory=list)
    logs: list[api.ReadLogResponse | grpc.StatusCode] | None = None
    asked: list[object] = field(default_factory=list)

    def _ask(self, request: object, context: grpc.ServicerContext) -> None:
        self.asked.append(request)
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {KEY}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the API key is not known")
        if self.refuse:
            context.abort(*self.refuse)

    def ListHooks(self, request: api.ListHooksRequest, context: grpc.ServicerContext) -> api.ListHooksResponse:
        self._ask(request, context)
        return api.ListHooksResponse(hooks=[api.Hook(name="ctingress.on_complete")], runtimes=self.runtimes)

    def ListHandlers(self, request: api.ListHandlersRequest, context: grpc.ServicerContext) -> api.ListHandlersResponse:
        self._ask(request, context)
        return api.ListHandlersResponse(handlers=self.handlers)

    def Register(self, request: api.RegisterRequest, context: grpc.ServicerContext) -> api.RegisterResponse:
        self._ask(request, context)
        return api.RegisterResponse(handler=api.Handler(id=1), notes=self.notes, check=self.check)

    def Deregister(self, request: api.DeregisterRequest, context: grpc.ServicerContext) -> api.DeregisterResponse:
        self._ask(request, context)
        return api.DeregisterResponse(id=request.id)

    def ReadLog(self, request: api.ReadLogRequest, context: grpc.ServicerContext) -> api.ReadLogResponse:
        self._ask(request, context)
        answer = grpc.StatusCode.UNIMPLEMENTED if self.logs is None else self.logs.pop(0)
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "not now")
        assert isinstance(answer, api.ReadLogResponse)
        return answer


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A running server whose CA is trusted."""
    made = make_certificates(tmp_path / "tls", "127.0.0.1")
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    service = Platform(made.ca)
    add_EventProcessingServiceServicer_to_server(service, server)
    credentials = grpc.ssl_server_credentials([(made.key.read_bytes(), made.cert.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    service.endpoint = f"127.0.0.1:{port}"
    monkeypatch.setenv("BTRDB_CA_BUNDLE", str(made.ca))
    yield service
    server.stop(None).wait()


@pytest.fixture
def conn(platform: Platform) -> Connection:
    """A connection to that server with a key that it knows."""
    return Connection(platform.endpoint, KEY)


@pytest.fixture
def in_bare_python(tmp_path: Path) -> Callable[[bytes, str], str]:
    """Loads a pickle in a Python that has dill alone, evaluates an expression of f, and gives what it prints."""
    packages = tmp_path / "bare"
    packages.mkdir()
    (packages / "dill").symlink_to(Path(dill.__file__).parent)

    def run(blob: bytes, expression: str) -> str:
        (tmp_path / "blob").write_bytes(blob)
        program = (
            "import importlib.util, sys\n"
            "assert importlib.util.find_spec('btrdbextras') is None\n"
            "import dill\n"
            "f = dill.loads(open(sys.argv[1], 'rb').read())\n"
            f"print({expression})\n"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-c", program, str(tmp_path / "blob")],
            env={"PYTHONPATH": str(packages)},
            cwd=packages,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
