"""Event processing at BTrDB's address."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from devstack.addresses import free_address
from devstack.btrdb.serve import Settings, serve
from devstack.certificates import make_certificates
from devstack.keys import make_keys
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import (
    EventProcessingServiceServicer,
    EventProcessingServiceStub,
    add_EventProcessingServiceServicer_to_server,
)


class Registry(EventProcessingServiceServicer):
    """Answers with what it was sent."""

    def ListHandlers(self, request: Any, context: grpc.ServicerContext) -> Any:
        key = dict(context.invocation_metadata()).get("authorization", "")
        return api.ListHandlersResponse(handlers=[api.Handler(name=str(key), hook=request.hook)])

    def ListHooks(self, request: Any, context: grpc.ServicerContext) -> Any:
        return api.ListHooksResponse()

    def Register(self, request: Any, context: grpc.ServicerContext) -> Any:
        return api.RegisterResponse()

    def Deregister(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, f"no handler has id {request.id}")


@pytest.fixture
def dial(tmp_path: Path) -> Iterator[Any]:
    """A stub through the gateway, and a way to stop the registry behind it."""
    address = free_address(4411, 4412)
    tls = make_certificates(tmp_path / "tls", address)
    make_keys({"alice": ()}, tmp_path / "keys.json")
    registry = grpc.server(ThreadPoolExecutor(4))
    add_EventProcessingServiceServicer_to_server(Registry(), registry)
    registry.add_secure_port(
        f"{address}:4412", grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
    )
    registry.start()
    server = serve(
        Settings(address, 4411, tmp_path / "data", tls.cert, tls.key, tls.ca, tmp_path / "keys.json", f"{address}:4412")
    )
    channel = grpc.secure_channel(f"{address}:4411", grpc.ssl_channel_credentials(tls.ca.read_bytes()))
    yield EventProcessingServiceStub(channel), registry
    channel.close()
    server.stop()
    registry.stop(0).wait()


def test_calls_and_their_keys_reach_the_registry(dial: Any) -> None:
    stub, _ = dial
    answer = stub.ListHandlers(api.ListHandlersRequest(hook="h"), metadata=[("authorization", "Bearer K")])
    assert [(h.name, h.hook) for h in answer.handlers] == [("Bearer K", "h")]


def test_the_registrys_errors_come_back_as_they_are(dial: Any) -> None:
    stub, _ = dial
    with pytest.raises(grpc.RpcError) as error:
        stub.Deregister(api.DeregisterRequest(id=7))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error.value.details() == "no handler has id 7"


def test_a_registry_that_is_away_is_unavailable_by_name(dial: Any) -> None:
    stub, registry = dial
    registry.stop(0).wait()
    with pytest.raises(grpc.RpcError) as error:
        stub.ListHandlers(api.ListHandlersRequest(), timeout=30)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the registry cannot be reached" in str(error.value.details())
