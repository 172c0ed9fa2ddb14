"""The calls over a real TLS server: every field there and back, and each error in its own words."""

from __future__ import annotations

import datetime
import inspect
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import dill
import grpc
import pytest

from btrdbextras import Connection, errors
from btrdbextras.eventproc import deregister, hooks, list_handlers, register, wire
from btrdbextras.eventproc.call import not_shaken
from devstack.certificates import make_certificates
from schemas.generated import eventprocapi_pb2 as api

HOOK = "ctingress.on_complete"
MAIL = "alice@example.com"


def count(DataSets: Any, **kwargs: Any) -> str:
    return f"{len(DataSets)} data sets"


def test_the_hooks_are_a_list_of_names(conn: Any) -> None:
    assert hooks(conn) == [HOOK]


def test_every_field_of_a_registration_arrives(conn: Any, platform: Any) -> None:
    same = register(conn, "count", HOOK, MAIL, "bob@example.com", tags=["north", "south"])(count)

    (asked,) = platform.asked
    sent = asked.registration
    assert same is count
    assert (sent.name, sent.hook, list(sent.tags)) == ("count", HOOK, ["north", "south"])
    assert (sent.notify_on_success, sent.notify_on_failure) == (MAIL, "bob@example.com")
    assert (sent.dependencies, sent.user, sent.api_key) == ("", "", conn.apikey)
    assert sent.python_version == "{}.{}.{}".format(*sys.version_info[:3])
    assert sent.dill_version == dill.__version__
    assert sent.source == inspect.getsource(count)
    assert sent.first_line == count.__code__.co_firstlineno
    assert sent.file_name == __file__
    assert dill.loads(sent.blob)([1, 2]) == "2 data sets"


@pytest.mark.parametrize("hidden", [(), ("importlib.metadata",)], ids=["as_it_is", "as_before_python_38"])
def test_versions_of_the_packages_that_a_handler_imports_are_sent(
    conn: Any, platform: Any, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...]
) -> None:
    def handler(**kwargs: Any) -> None:
        import json

        import numpy as np

        np.zeros(len(json.__version__))  # type: ignore[attr-defined]

    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)

    register(conn, "n", HOOK, MAIL, MAIL)(handler)

    import numpy

    sent = platform.asked[0].registration
    assert {package.name: package.version for package in sent.packages} == {"numpy": numpy.__version__}


def test_every_field_of_a_handler_comes_back(conn: Any, platform: Any) -> None:
    platform.handlers = [
        api.Handler(
            id=7, hook=HOOK, name="count", version=3, tag=["north", "south"], notify_on_success=MAIL,
            notify_on_failure="bob@example.com", created_by="alice", created_at=1_700_000_000_123_456_789,
            updated_by="bob", updated_at=1_700_000_001_000_000_000, runtime="py3.11",
        )
    ]  # fmt: skip

    (handler,) = list_handlers(conn)

    utc = datetime.UTC
    assert handler == (
        7, "count", HOOK, 3, MAIL, "bob@example.com", ["north", "south"],
        datetime.datetime(2023, 11, 14, 22, 13, 20, 123456, utc), "alice",
        datetime.datetime(2023, 11, 14, 22, 13, 21, 0, utc), "bob",
    )  # fmt: skip
    assert handler._fields == (
        "id", "name", "hook", "version", "notify_on_success", "notify_on_failure", "tags",
        "created_at", "created_by", "updated_at", "updated_by",
    )  # fmt: skip
    assert handler.created_at.tzinfo is utc


def test_handlers_of_one_hook_are_asked_for_by_either_name(conn: Any, platform: Any) -> None:
    list_handlers(conn)
    list_handlers(conn, HOOK)
    list_handlers(conn, hook=HOOK)
    list_handlers(conn, hooks=HOOK)

    assert [asked.hook for asked in platform.asked] == ["", HOOK, HOOK, HOOK]


def test_a_list_of_handlers_may_be_larger_than_four_mebibytes(conn: Any, platform: Any) -> None:
    platform.handlers = [api.Handler(id=number, name="n" * 1000) for number in range(6000)]

    assert len(list_handlers(conn)) == 6000


def test_a_removed_handler_is_true(conn: Any, platform: Any) -> None:
    assert deregister(conn, 7) is True
    assert platform.asked[0].id == 7


def test_notes_of_the_platform_are_printed(conn: Any, platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.notes = ["it will run on 3.11"]

    register(conn, "count", HOOK, MAIL, MAIL)(count)

    assert capsys.readouterr().out.endswith("note: it will run on 3.11\n")


def test_what_the_check_said_is_printed_once(conn: Any, platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.check = "not checked: no executor answered"
    platform.notes = [platform.check, "it is paused"]

    register(conn, "count", HOOK, MAIL, MAIL)(count)

    assert capsys.readouterr().out.endswith("; not checked: no executor answered\nnote: it is paused\n")


def test_the_messages_have_the_fields_and_numbers_of_the_proto() -> None:
    described = {}
    for name, message in api.DESCRIPTOR.message_types_by_name.items():
        described[name] = message
        ours = wire.message(name).DESCRIPTOR
        assert {(f.name, f.number, f.type, f.is_repeated) for f in ours.fields} == {
            (f.name, f.number, f.type, f.is_repeated) for f in message.fields
        }
    assert set(described) == set(wire._MESSAGES)


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequest, ValueError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.NotYours, PermissionError),
        (grpc.StatusCode.NOT_FOUND, errors.UnknownHandler, LookupError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.InvalidRegistration, ValueError),
        (grpc.StatusCode.UNAVAILABLE, errors.NoServer, ConnectionError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NoServer, ConnectionError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.NoServer, ConnectionError),
        (grpc.StatusCode.INTERNAL, errors.ServiceFailed, RuntimeError),
    ],
)
def test_what_the_platform_refuses_is_an_error_of_its_kind(
    conn: Any, platform: Any, code: Any, kind: Any, builtin: Any
) -> None:
    platform.refuse = (code, "hook: 'x' is no hook; there are: ctingress.on_complete")

    with pytest.raises(kind) as caught:
        deregister(conn, 1)

    assert isinstance(caught.value, builtin)
    if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        assert "there are: ctingress.on_complete" in str(caught.value)


def test_a_wrong_key_is_said_so(platform: Any) -> None:
    with pytest.raises(errors.WrongKey, match="API key") as caught:
        hooks(Connection(platform.endpoint, "WRONG"))

    assert isinstance(caught.value, PermissionError)
    assert "WRONG" not in str(caught.value)


def test_no_server_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTRDB_CA_BUNDLE", raising=False)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        port = held.getsockname()[1]

        with pytest.raises(errors.NoServer, match=rf"127\.0\.0\.1:{port}.*BTRDB_ENDPOINTS"):
            hooks(Connection(f"127.0.0.1:{port}", "KEY"))


def test_an_untrusted_certificate_names_the_variable_to_set(
    platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_certificates(tmp_path / "other", "127.0.0.1")
    for bundle in ("", str(other.ca)):
        monkeypatch.setenv("BTRDB_CA_BUNDLE", bundle)

        with pytest.raises(errors.UntrustedCertificate, match="BTRDB_CA_BUNDLE"):
            hooks(Connection(platform.endpoint, "KEY"))


def test_a_certificate_for_another_address_is_untrusted(platform: Any) -> None:
    host, port = platform.endpoint.split(":")
    assert host == "127.0.0.1"

    with pytest.raises(errors.UntrustedCertificate, match="host name"):
        hooks(Connection(f"localhost:{port}", "KEY"))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_bundle_with_comments_in_any_encoding_is_read(
    platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes("# Störstellen-Süd\n".encode(encoding) + platform.ca.read_bytes())
    monkeypatch.setenv("BTRDB_CA_BUNDLE", str(bundle))
    port = platform.endpoint.split(":")[1]

    assert hooks(Connection(platform.endpoint, "0123456789ABCDEF")) == [HOOK]
    with pytest.raises(errors.UntrustedCertificate, match="host name"):
        hooks(Connection(f"localhost:{port}", "KEY"))


def _by_reason(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] as Python 3.6 says it")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (_by_reason("CERTIFICATE_VERIFY_FAILED"), errors.UntrustedCertificate, "is not trusted"),
        (ssl.CertificateError("hostname 'a' doesn't match 'b'"), errors.UntrustedCertificate, "is not trusted"),
        (_by_reason("WRONG_VERSION_NUMBER"), errors.NoServer, "does not speak TLS"),
        (ConnectionRefusedError("refused"), errors.NoServer, "nobody at a:1"),
    ],
)
def test_a_handshake_that_fails_is_told_apart_by_what_every_python_has(error: Any, kind: Any, said: str) -> None:
    told = not_shaken("a:1", error, "nobody at %s (%s)")

    assert type(told) is kind
    assert said in str(told)


def test_a_server_without_tls_is_told_apart_from_an_untrusted_one() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one:
                one.recv(1024)
                one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(errors.NoServer, match="does not speak TLS"):
            hooks(Connection(f"127.0.0.1:{listener.getsockname()[1]}", "KEY"))
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_cannot_be_used_is_an_error(
    platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("BTRDB_CA_BUNDLE", str(bundle))

    with pytest.raises(errors.UntrustedCertificate, match=r"BTRDB_CA_BUNDLE names .*bundle\.pem"):
        hooks(Connection(platform.endpoint, "KEY"))


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"name": ""}, ValueError, "name"),
        ({"name": 3}, TypeError, "name"),
        ({"hook": " "}, ValueError, "hook"),
        ({"tags": "north"}, TypeError, r"tags=\['north'\]"),
        ({"tags": ["north", 3]}, TypeError, "tags"),
        ({"tags": ["north", ""]}, ValueError, "tag is empty"),
        ({"notify_on_success": "alice"}, ValueError, "notify_on_success"),
        ({"notify_on_failure": "a@example.com, b@example.com"}, ValueError, "notify_on_failure"),
        ({"notify_on_failure": 3}, TypeError, "notify_on_failure"),
    ],
)
def test_a_wrong_argument_is_refused_before_the_platform_is_asked(
    conn: Any, platform: Any, change: Any, kind: Any, said: Any
) -> None:
    given = {"name": "n", "hook": HOOK, "notify_on_success": MAIL, "notify_on_failure": MAIL, **change}

    with pytest.raises(kind, match=said):
        register(conn, **given)

    assert platform.asked == []


@pytest.mark.parametrize("handler_id", ["7", True, None, -1, 2**31])
def test_an_id_that_is_none_is_refused_before_the_platform_is_asked(conn: Any, platform: Any, handler_id: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="handler_id"):
        deregister(conn, handler_id)

    assert platform.asked == []
