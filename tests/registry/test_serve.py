"""The registry's certificate and service tokens, replaced while it serves."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from registry.auth import ServiceTokens
from registry.refuse import Refusal
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated import executorapi_pb2 as executors_api
from tests.registry_server import KEYS, TOKEN, Running, bearer, running
from tests.tls_server import Rotating


def listed(registry: Running) -> bool:
    return bool(registry.users.ListHooks(api.ListHooksRequest(), metadata=bearer(KEYS["alice"]), timeout=10).hooks)


def renewed(registry: Running) -> bool:
    return bool(registry.executors.Renew(executors_api.RenewRequest(), metadata=bearer(TOKEN), timeout=10).lease_s)


def test_a_new_certificate_is_shown_on_new_connections_and_the_old_ones_go_on(tmp_path: Path) -> None:
    rotating = Rotating(tmp_path / "tls")
    with running(tmp_path, tls=rotating.files) as registry:
        assert listed(registry) and renewed(registry)
        ports = (registry.servers.public, registry.servers.internal)
        first = {rotating.shown(port) for port in ports}

        second = rotating.rotate()

        assert [rotating.shown(port) for port in ports] == [second, second] and second not in first
        assert listed(registry) and renewed(registry)  # on their connections of before

        rotating.files.key.write_text("broken")
        assert [rotating.shown(port) for port in ports] == [second, second]
        credentials = grpc.ssl_channel_credentials(rotating.files.ca.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{registry.servers.public}", credentials) as fresh:
            grpc.channel_ready_future(fresh).result(timeout=10)


def test_a_service_token_counts_as_soon_as_it_is_in_the_file_and_until_it_is_out_of_it(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("old\n")
    tokens = ServiceTokens(file)
    with pytest.raises(Refusal):
        tokens.check(bearer("new"))

    file.write_text("new\nold\n")
    tokens.check(bearer("old"))
    tokens.check(bearer("new"))

    file.write_text("new\n")
    with pytest.raises(Refusal):
        tokens.check(bearer("old"))


def test_a_tokens_file_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("good\n")
    tokens = ServiceTokens(file)
    for break_it in (lambda: file.write_text("\n"), lambda: file.write_bytes(b"\xff"), file.unlink):
        break_it()

        tokens.check(bearer("good"))
        with pytest.raises(Refusal):
            tokens.check(bearer("bad"))
    with pytest.raises(ValueError, match="should have a service token on each line"):
        ServiceTokens(file)
