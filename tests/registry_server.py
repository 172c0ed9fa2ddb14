"""A registry that serves both services over TLS, on a SQLite ledger, and callers of each; for tests of several folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dill
import grpc
import pytest
from cryptography.fernet import Fernet

from devstack.certificates import Certificates, make_certificates
from ledger import Ledger
from ledger.rules import Rules
from registry.serve import Servers, serve
from registry.settings import RegistrySettings
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import EventProcessingServiceStub
from schemas.generated.executorapi_pb2_grpc import ExecutorServiceStub
from tests.migrated import migrated

KEYS = {"alice": "A" * 40, "bob": "B" * 40, "root": "C" * 40}
TOKEN = "token-of-the-executors"
HOOK = "ctingress.on_complete"
Metadata = tuple[tuple[str, str | bytes], ...]
BLOB_BYTES = 32 * 1024 * 1024


def pickled() -> bytes:
    """A small function by value, made by this Python."""

    def handler(**kwargs: object) -> str:
        return "done"

    handler.__module__ = "__main__"
    blob: bytes = dill.dumps(handler, recurse=True)
    return blob


def entry(user: str, key: str, *roles: str) -> dict[str, object]:
    """Of the keys file."""
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "user": user, "roles": list(roles)}


def bearer(key: str) -> Metadata:
    """Metadata of a call."""
    return (("authorization", f"Bearer {key}"),)


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """The status and text with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details() or ""


@dataclass
class Running:
    """users, executors: stubs; keys_file: may be rewritten; ca: PEM file; internal: host:port for executors."""

    ledger: Ledger
    users: EventProcessingServiceStub
    executors: ExecutorServiceStub
    keys_file: Path
    ca: Path
    internal: str
    servers: Servers

    def register(self, user: str = "alice", **changed: object) -> api.RegisterResponse:
        """Registers a function as user; what is not given is something sensible."""
        fields = {
            "name": "report", "hook": HOOK, "tags": ["north"], "blob": pickled(), "python_version": "3.11.7",
            "notify_on_success": "ok@example.com", "notify_on_failure": "bad@example.com", **changed,
        }  # fmt: skip
        request = api.RegisterRequest(registration=api.Registration(**fields))  # type: ignore[arg-type]
        answer: api.RegisterResponse = self.users.Register(request, metadata=bearer(KEYS[user]), timeout=30)
        return answer

    def handlers(self, hook: str = "", user: str = "bob") -> list[api.Handler]:
        """As listed to a user."""
        request = api.ListHandlersRequest(hook=hook)
        return list(self.users.ListHandlers(request, metadata=bearer(KEYS[user]), timeout=30).handlers)


@contextmanager
def running(
    tmp_path: Path, runtimes: str = "py3.7,py3.8,py3.11", check_s: float = 20.0, tls: Certificates | None = None,
    **changed: object,
) -> Iterator[Running]:  # fmt: skip
    """One with its state in tmp_path; tls: for 127.0.0.1, its own when none is given; changed: fields of Rules."""
    tls = tls or make_certificates(tmp_path / "tls", "127.0.0.1")
    keys_file, tokens_file = tmp_path / "keys.json", tmp_path / "tokens"
    entries = [entry(user, key, *(["admin"] if user == "root" else [])) for user, key in KEYS.items()]
    keys_file.write_text(json.dumps({"keys": entries}))
    tokens_file.write_text(f"an-older-one\n{TOKEN}\n")
    settings = RegistrySettings(
        ledger_url=migrated(tmp_path / "ledger.db"), listen="127.0.0.1:0", internal_listen="127.0.0.1:0",
        cert=tls.cert, key=tls.key, keys_file=keys_file, tokens_file=tokens_file, runtimes=runtimes, check_s=check_s,
        mail_domains="example.com", blob_bytes=BLOB_BYTES, downloads_endpoint="files.example.com",
    )  # fmt: skip
    ledger = Ledger.open(settings.ledger_url, [Fernet.generate_key().decode()])
    servers = serve(settings, ledger, Rules(**changed))  # type: ignore[arg-type]
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes())
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with (
        grpc.secure_channel(f"127.0.0.1:{servers.public}", credentials, options) as public,
        grpc.secure_channel(f"127.0.0.1:{servers.internal}", credentials, options) as internal,
    ):
        yield Running(
            ledger, EventProcessingServiceStub(public), ExecutorServiceStub(internal), keys_file, tls.ca,
            f"127.0.0.1:{servers.internal}", servers,
        )  # fmt: skip
    servers.stop(0)
    ledger.close()
