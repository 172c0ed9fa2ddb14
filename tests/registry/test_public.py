"""The users' service over TLS: who may do what, what is refused and how it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dill
import grpc
import pytest

from ledger.credentials import unseal
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import EventProcessingServiceStub
from tests.registry_server import BLOB_BYTES, HOOK, KEYS, Running, bearer, entry, pickled, refusal, running


def test_hooks_and_runtimes_are_listed_to_anyone_with_a_key(registry: Running) -> None:
    answer = registry.users.ListHooks(api.ListHooksRequest(), metadata=bearer(KEYS["bob"]))

    assert [hook.name for hook in answer.hooks] == [HOOK]
    assert list(answer.runtimes) == ["py3.7", "py3.8", "py3.11"]


@pytest.mark.parametrize("metadata", [None, [("authorization", "Bearer ")], [("authorization", KEYS["alice"])]])
def test_a_call_without_a_key_is_told_how_to_give_one(registry: Running, metadata: Any) -> None:
    status, text = refusal(lambda: registry.users.ListHooks(api.ListHooksRequest(), metadata=metadata))

    assert status == "UNAUTHENTICATED" and "BTRDB_API_KEY" in text


def test_an_unknown_key_is_refused_by_every_call(registry: Running) -> None:
    users, wrong = registry.users, bearer("D" * 40)
    calls = (
        lambda: users.ListHooks(api.ListHooksRequest(), metadata=wrong),
        lambda: users.ListHandlers(api.ListHandlersRequest(), metadata=wrong),
        lambda: users.Register(api.RegisterRequest(), metadata=wrong),
        lambda: users.Deregister(api.DeregisterRequest(id=1), metadata=wrong),
    )

    assert [refusal(call)[0] for call in calls] == ["UNAUTHENTICATED"] * 4


def test_a_key_that_is_added_to_the_file_is_known_at_once_and_a_removed_one_is_not(registry: Running) -> None:
    registry.keys_file.write_text(json.dumps({"keys": [entry("carol", "E" * 40)]}))

    assert registry.users.ListHooks(api.ListHooksRequest(), metadata=bearer("E" * 40)).hooks
    status, _ = refusal(lambda: registry.users.ListHooks(api.ListHooksRequest(), metadata=bearer(KEYS["alice"])))
    assert status == "UNAUTHENTICATED"


def test_a_nul_is_refused_wherever_the_ledger_would_have_to_keep_it_or_look_for_it(registry: Running) -> None:
    users, alice = registry.users, bearer(KEYS["alice"])
    odd = api.Registration(name="h", hook=HOOK, blob=pickled(), packages=[api.Package(name="a\0b")])
    calls = {
        "registration.dill_version": lambda: registry.register(dill_version="0.3\0"),
        "registration.python_version": lambda: registry.register(python_version="3.11.7\0"),
        "registration.packages[0].name": lambda: users.Register(api.RegisterRequest(registration=odd), metadata=alice),
        "handler.name": lambda: users.ListRuns(api.ListRunsRequest(handler=api.HandlerRef(name="h\0")), metadata=alice),
        "owner": lambda: users.ListRuns(api.ListRunsRequest(owner="bob\0"), metadata=bearer(KEYS["root"])),
    }

    for field, call in calls.items():
        status, why = refusal(call)
        assert status == "INVALID_ARGUMENT"
        assert why.startswith(f"{field}: ") and "has a control character, NUL" in why
    assert registry.register(source="def h(): '\0'\n").handler.id


def test_the_port_speaks_nothing_but_tls(registry: Running) -> None:
    target = registry.users.ListHooks._channel.target().decode()  # type: ignore[attr-defined]
    with grpc.insecure_channel(target) as channel:
        stub = EventProcessingServiceStub(channel)
        status, _ = refusal(lambda: stub.ListHooks(api.ListHooksRequest(), metadata=bearer(KEYS["bob"]), timeout=5))

    assert status == "UNAVAILABLE"


def test_a_handler_is_listed_as_it_was_registered(registry: Running) -> None:
    handler = registry.register(tags=["north", "east", "north"]).handler

    assert registry.handlers() == registry.handlers(HOOK) == [handler]
    assert (handler.id, handler.version, handler.hook, handler.name) == (1, 0, HOOK, "report")
    assert list(handler.tag) == ["east", "north"]
    assert (handler.notify_on_success, handler.notify_on_failure) == ("ok@example.com", "bad@example.com")
    assert handler.created_by == handler.updated_by == "alice"
    assert handler.created_at == handler.updated_at > 10**18
    assert handler.callable == b""


def test_the_same_name_and_hook_is_the_next_version_under_the_same_id(registry: Running) -> None:
    first = registry.register().handler
    second = registry.register(tags=[]).handler

    assert (second.id, second.version, list(second.tag)) == (first.id, 1, [])
    assert second.created_at == first.created_at and second.updated_at >= first.updated_at
    assert registry.handlers() == [second]


def test_only_its_owner_replaces_a_handler(registry: Running) -> None:
    registry.register("alice")

    for other in ("bob", "root"):
        status, text = refusal(lambda other=other: registry.register(other))  # type: ignore[misc]
        assert status == "PERMISSION_DENIED" and "alice" in text


def test_its_owner_or_an_admin_removes_a_handler(registry: Running) -> None:
    first, second = registry.register(name="one").handler, registry.register(name="two").handler

    def remove(user: str, number: int) -> int:
        return registry.users.Deregister(api.DeregisterRequest(id=number), metadata=bearer(KEYS[user])).id

    assert refusal(lambda: remove("bob", first.id))[0] == "PERMISSION_DENIED"
    assert remove("alice", first.id) == first.id
    assert remove("root", second.id) == second.id
    assert registry.handlers() == []
    status, text = refusal(lambda: remove("alice", first.id))
    assert status == "NOT_FOUND" and "list_handlers()" in text


def test_the_key_of_the_registration_is_sealed_for_its_runs(registry: Running) -> None:
    registry.register("alice", api_key=KEYS["alice"])

    with registry.ledger.read() as session:
        assert unseal(session, registry.ledger, "alice") == KEYS["alice"]
        assert unseal(session, registry.ledger, "bob") is None


def test_the_largest_pickle_goes_through(registry: Running) -> None:
    def handler(**kwargs: object) -> int:
        return len(data)

    data = b"x" * (BLOB_BYTES - 5000)
    handler.__module__ = "__main__"
    blob = dill.dumps(handler, recurse=True)
    assert BLOB_BYTES - 5000 < len(blob) <= BLOB_BYTES

    assert registry.register(blob=blob).handler.id == 1


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"hook": "ctingres.on_complete"}, "hook: 'ctingres.on_complete' is no hook; there are: ctingress.on_complete"),
        ({"hook": ""}, "hook: '' is no hook"),
        ({"name": " "}, "name: is empty; it should have 1 to 100 characters"),
        ({"name": "n" * 101}, "name: has 101 characters"),
        ({"name": "a\r\nBcc: x@example.com"}, "name: 'a\\r\\nBcc: x@example.com' has a line break"),
        ({"name": "a\u2028b"}, "control character"),
        ({"name": "a\u202eb"}, "control character"),
        (
            {"dependencies": "numpy"},
            "dependencies: is not read; it should be empty: requirements say what a handler needs",
        ),
        ({"blob": dill.dumps(3)}, "blob: holds no function; it should be a function pickled with dill"),
        ({"tags": ["a", ""]}, "tags[1]: is empty; leave it out"),
        ({"tags": ["t" * 101]}, "tags[0]: has 101 characters"),
        ({"tags": [str(n) for n in range(101)]}, "tags: are 101; there should be at most 100"),
        ({"tags": ["a\0b"]}, "tags[0]: 'a\\x00b' has a control character"),
        ({"notify_on_success": "alice"}, "notify_on_success: "),
        ({"notify_on_failure": "a@example.com, b@example.com"}, "notify_on_failure: "),
        ({"notify_on_failure": "a@example.org"}, "no mail may go to; allowed: example.com"),
        ({"blob": b""}, "blob: is empty; it should be a function pickled with dill"),
        ({"blob": b"no pickle"}, "blob: is not a pickle that can be read: at byte 0"),
        ({"blob": b"\x80\x04\x8c\x04math\x8c\x04sqrt\x93."}, "blob: holds only a reference to module 'math'"),
        ({"requirements": ["numpy", "-e ."]}, "requirements[1]: '-e .' is no requirement"),
        (
            {"requirements": ["a @ https://example.com/a.whl"]},
            "names an address; packages come from this installation's",
        ),
        ({"requirements": ["a"] * 51}, "requirements: are 51; there should be at most 50"),
        ({"python_version": "three"}, "python_version: 'three' is no Python version; it should be like 3.11.7"),
        ({"python_version": "3.8.18"}, "python_version: is 3.8.18, but the pickle was made by Python 3.11"),
        ({"api_key": KEYS["bob"]}, "api_key: is not the key of the call"),
        ({"blob": b"x" * (BLOB_BYTES + 1)}, f"blob: has {BLOB_BYTES + 1} bytes; at most {BLOB_BYTES} are allowed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_field_is_named_with_what_would_be_right(registry: Running, changed: dict[str, Any], said: str) -> None:
    status, text = refusal(lambda: registry.register(**changed))

    assert status == "INVALID_ARGUMENT"
    assert said in text
    assert registry.handlers() == []


def test_a_registration_in_somebody_elses_name_is_refused(registry: Running) -> None:
    given = api.Registration(name="a", hook=HOOK, blob=pickled(), python_version="3.11.7", user="bob")
    request = api.RegisterRequest(registration=given)
    status, text = refusal(lambda: registry.users.Register(request, metadata=bearer(KEYS["alice"])))

    assert (status, text) == ("INVALID_ARGUMENT", "user: is 'bob', but the key is alice's; it should be empty")


def test_a_hook_that_is_none_cannot_be_listed(registry: Running) -> None:
    status, text = refusal(lambda: registry.handlers("nope"))

    assert status == "INVALID_ARGUMENT" and "there are: ctingress.on_complete" in text


def test_an_empty_address_means_no_mail(registry: Running) -> None:
    handler = registry.register(notify_on_success="", notify_on_failure="  ").handler

    assert (handler.notify_on_success, handler.notify_on_failure) == ("", "")


def test_a_client_in_the_field_says_nothing_of_its_python(registry: Running) -> None:
    answer = registry.register(python_version="", blob=pickled(), api_key=KEYS["alice"])

    assert answer.handler.runtime == "py3.11"


def test_a_client_of_a_newer_python_than_any_known_is_believed(tmp_path: Path) -> None:
    with running(tmp_path, "py3.11,py3.14") as registry:
        assert registry.register(python_version="3.14.0").handler.runtime == "py3.14"
