"""Sandboxes to run handlers in, and jobs made from functions written in a test."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import dill
import grpc
import pytest
from btrdb.grpcinterface import btrdb_pb2, btrdb_pb2_grpc

from executor.sandbox.job import MIB, Access, Ended, Job, Limits, Runtime
from executor.sandbox.runtime import SandboxedRuntime

KEY = "sk-alice+secret/0123456789"
RUNTIME = Runtime("py3.11", Path(sys.executable))
EVENT: dict[str, object] = {
    "DataSets": [{"Name": "/a.cfg", "Success": True, "Error": "", "Streams": None}],
    "File": "a.zip",
    "RequestID": "5a0f0f5c-0000-4000-8000-000000000001",
    "SubmittedAt": "2020-10-29T21:58:15.09246084Z",
    "Tags": ["line-7"],
    "Recordings": [],
}


def pickled(handler: Callable[..., Any]) -> bytes:
    """By value, as a notebook's function is."""
    handler.__module__ = "__main__"
    blob: bytes = dill.dumps(handler, recurse=True)
    return blob


def make_job(handler: Callable[..., Any] | bytes, **given: Any) -> Job:
    """A job with small limits; given overrides fields of Job and of Limits."""
    limits = Limits(
        wall_s=given.pop("wall_s", 30.0),
        warning_s=given.pop("warning_s", 0.5),
        memory_bytes=given.pop("memory_bytes", 512 * MIB),
        scratch_bytes=given.pop("scratch_bytes", 64 * MIB),
        output_bytes=given.pop("output_bytes", 64 * 1024),
        text_bytes=given.pop("text_bytes", 64 * 1024),
        processes=given.pop("processes", 32),
    )
    fields: dict[str, Any] = {
        "run_id": str(uuid.uuid4()),
        "blob": handler if isinstance(handler, bytes) else pickled(handler),
        "arguments": EVENT,
        "documented": ("DataSets", "File", "RequestID", "SubmittedAt"),
        "api_key": KEY,
        "limits": limits,
        "handler": "mine",
    }
    return Job(**{**fields, **given})


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedRuntime]:
    """A sandbox without BTrDB, shared by the tests: each run has a child of its own."""
    spool = tmp_path_factory.mktemp("spool")
    runtime = SandboxedRuntime(RUNTIME, Access(None), warm=1, scratch_bytes=64 * MIB, spool=spool)
    runtime.start()
    yield runtime
    runtime.close()


@pytest.fixture
def run(sandbox: SandboxedRuntime) -> Callable[..., Ended]:
    """Runs a function as a handler."""
    return lambda handler, **given: sandbox.run(make_job(handler, **given))


class Info(btrdb_pb2_grpc.BTrDBServicer):  # type: ignore[misc]
    """Answers what btrdb.connect() asks; refuses every key but KEY."""

    def Info(self, request: Any, context: grpc.ServicerContext) -> Any:
        """An old server's version."""
        if ("authorization", f"Bearer {KEY}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong key")
        return btrdb_pb2.InfoResponse(majorVersion=5, minorVersion=11, build="5.11.0")


@pytest.fixture(scope="session")
def btrdb_endpoint() -> Iterator[str]:
    """A listening host:port that answers as BTrDB on connect."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    btrdb_pb2_grpc.add_BTrDBServicer_to_server(Info(), server)
    port = server.add_insecure_port("127.0.0.7:0")
    server.start()
    yield f"127.0.0.7:{port}"
    server.stop(0).wait()


@pytest.fixture(scope="session")
def networked(btrdb_endpoint: str) -> Iterator[SandboxedRuntime]:
    """A sandbox with a way to BTrDB."""
    runtime = SandboxedRuntime(RUNTIME, Access(btrdb_endpoint), warm=1, scratch_bytes=64 * MIB)
    runtime.start()
    yield runtime
    runtime.close()
