"""What the executor asks the registry, over a real one with TLS."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from executor.ask import Blobs, NoSuchBlob, Registry
from schemas.errors import TryLater
from schemas.generated.executorapi_pb2_grpc import ExecutorServiceServicer, add_ExecutorServiceServicer_to_server
from tests.registry_server import TOKEN, Running, pickled, running


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def asks(registry: Running) -> Iterator[Registry]:
    client = Registry(registry.internal, lambda: TOKEN, registry.ca, 5.0, 64 << 20)
    yield client
    client.close()


def test_a_blob_comes_whole_however_large_it_is(registry: Running, asks: Registry) -> None:
    blob = pickled() + bytes(5 << 20)  # a pickle ends at its STOP; what follows is not read
    registry.register(blob=blob)

    assert asks.fetch_blob(hashlib.sha256(blob).hexdigest()) == blob


def test_a_blob_that_is_not_there_is_no_matter_of_waiting(asks: Registry) -> None:
    with pytest.raises(NoSuchBlob):
        asks.fetch_blob("0" * 64)


def test_a_registry_that_is_away_is_for_later(registry: Running, asks: Registry) -> None:
    registry.servers.stop(0)

    with pytest.raises(TryLater, match="registry: "):
        asks.claim("boot", "nonce", "ex", ["r"])
    with pytest.raises(TryLater):
        asks.fetch_blob("0" * 64)


class Broken(grpc.GenericRpcHandler):
    """A registry, or a proxy before it, that answers whatever it is asked with a status alone."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def service(self, _asked: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._fail)

    def _fail(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(self._code, "something broke")


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED])
def test_a_registry_that_fails_is_for_later_and_ends_no_run(code: grpc.StatusCode) -> None:
    told: list[tuple[bool, str]] = []
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Broken(code),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    asks = Registry(
        f"127.0.0.1:{port}", lambda: TOKEN, None, 5.0, 64 << 20, answers=lambda ok, why: told.append((ok, why))
    )
    for ask in (
        lambda: asks.claim("boot", "nonce", "ex", ["r"]),
        lambda: asks.renew("boot", "ex", []),
        lambda: asks.report("r", "lease"),
        lambda: asks.fetch_blob("0" * 64),
    ):
        with pytest.raises(TryLater, match=f"registry: {code.name}: something broke"):
            ask()
    asks.close()
    server.stop(0)

    assert told == [(False, f"registry: {code.name}: something broke")] * 4


def test_whether_the_registry_answers_is_told_by_each_call(registry: Running) -> None:
    told: list[tuple[bool, str]] = []
    asks = Registry(
        registry.internal, lambda: TOKEN, registry.ca, 5.0, 64 << 20, answers=lambda ok, why: told.append((ok, why))
    )
    asks.renew("boot", "ex", [])
    registry.servers.stop(0)
    with pytest.raises(TryLater):
        asks.renew("boot", "ex", [])
    with pytest.raises(TryLater):
        asks.fetch_blob("0" * 64)
    asks.close()

    assert [ok for ok, _ in told] == [True, False, False]
    assert told[0][1] == "" and told[1][1].startswith("registry: ")


def test_a_wrong_token_stops_the_executor(registry: Running) -> None:
    client = Registry(registry.internal, lambda: "stale", registry.ca, 5.0, 64 << 20)
    with pytest.raises(grpc.RpcError, match="EXECUTOR_TOKEN_FILE"):
        client.claim("boot", "nonce", "ex", ["r"])
    client.close()


def test_the_token_is_read_for_each_call_so_that_it_may_rotate(registry: Running) -> None:
    tokens = iter(["an-older-one", TOKEN])
    client = Registry(registry.internal, lambda: next(tokens), registry.ca, 5.0, 64 << 20)

    assert client.renew("boot", "ex", []) == client.renew("boot", "ex", []) == []
    client.close()


def test_blobs_are_asked_for_once_and_the_longest_unused_go_first() -> None:
    asked: list[str] = []

    def fetch(digest: str) -> bytes:
        asked.append(digest)
        return digest.encode() * 10

    blobs = Blobs(fetch, keep_bytes=25)
    for digest in ("a", "b", "a", "c", "a", "b"):
        assert blobs.get(digest) == digest.encode() * 10

    assert asked == ["a", "b", "c", "b"]


def test_a_blob_larger_than_the_cache_is_kept_until_the_next() -> None:
    asked: list[str] = []

    def fetch(digest: str) -> bytes:
        asked.append(digest)
        return bytes(100)

    blobs = Blobs(fetch, keep_bytes=25)
    for digest in ("a", "a", "b", "a"):
        blobs.get(digest)

    assert asked == ["a", "b", "a"]


def test_a_registry_of_before_the_call_for_logs_takes_none(asks: Registry) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    add_ExecutorServiceServicer_to_server(ExecutorServiceServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    older = Registry(f"127.0.0.1:{port}", lambda: TOKEN, None, 5.0, 1 << 20)

    assert older.append_log([("run", "lease", 0, "a\n"), ("another", "lease", 0, "b\n")]) == [-1, -1]
    assert asks.append_log([("run", "lease", 0, "a\n")]) == [-1]  # of a run that is not there
    older.close()
    server.stop(0)
