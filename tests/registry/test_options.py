"""What a registration asks for of its runs: kept as asked within the operator's limits, else refused with the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.options import MIB, Most, check_options
from registry.refuse import Refusal
from schemas.generated import eventprocapi_pb2 as api
from tests.registry_server import KEYS, Running, refusal, running


def test_options_are_kept_and_told_as_they_were_asked_for(registry: Running) -> None:
    asked = api.Options(
        timeout_s=2.5, memory_bytes=256 * MIB, max_concurrency=3, retries=2, retry_delay_s=0.5, notify="failures",
        description="Finds the fault current.\nSee the wiki.",
    )  # fmt: skip

    handler = registry.register(options=asked, requirements=["scipy"]).handler

    assert handler.options == asked and list(handler.requirements) == ["scipy"]
    assert registry.handlers() == [handler]


def test_a_client_in_the_field_asks_for_nothing_and_gets_what_it_always_got(registry: Running) -> None:
    registry.register(options=api.Options(retries=2, timeout_s=5))

    handler = registry.register(python_version="", api_key=KEYS["alice"]).handler

    assert handler.options == api.Options(notify="each")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"timeout_s": 14_401}, "options.timeout_s: is 14401; it should be 1 to 14400 s here; 0 leaves it to the"),
        ({"timeout_s": 0.5}, "options.timeout_s: is 0.5; it should be 1 to 14400 s"),
        ({"timeout_s": -1}, "options.timeout_s: is -1"),
        ({"timeout_s": float("nan")}, "options.timeout_s: is nan"),
        ({"timeout_s": float("inf")}, "options.timeout_s: is inf"),
        ({"memory_bytes": 3 << 30}, "options.memory_bytes: is 3221225472; it should be 67108864 to 2147483648 bytes"),
        ({"memory_bytes": 512}, "options.memory_bytes: is 512"),
        ({"max_concurrency": -1}, "options.max_concurrency: is -1; it should be 1 to 10000 runs at a time"),
        ({"retries": 11}, "options.retries: is 11; it should be 1 to 10 attempts after the first here; 0 is for none"),
        ({"retries": 1, "retry_delay_s": 86_401}, "options.retry_delay_s: is 86401; it should be 0 to 86400 s"),
        ({"retry_delay_s": 5}, "options.retry_delay_s: is 5, but options.retries is 0: nothing is tried again"),
        ({"notify": "never"}, "options.notify: 'never' should be one of each, digest, failures, none"),
        ({"description": "d" * 2001}, "options.description: has 2001 characters; it should have at most 2000"),
        ({"description": "a\x07b"}, "options.description: has a control character"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_allowed_is_named_with_the_limit(registry: Running, asked: dict[str, Any], said: str) -> None:
    status, text = refusal(lambda: registry.register(options=api.Options(**asked)))

    assert status == "INVALID_ARGUMENT" and said in text
    assert registry.handlers() == []


def test_no_more_is_allowed_at_a_time_than_the_installation_runs_of_a_handler(tmp_path: Path) -> None:
    with running(tmp_path, per_handler=4) as registry:
        status, text = refusal(lambda: registry.register(options=api.Options(max_concurrency=5)))
        handler = registry.register(options=api.Options(max_concurrency=4)).handler

    assert status == "INVALID_ARGUMENT" and "is 5; it should be 1 to 4 runs at a time" in text
    assert handler.options.max_concurrency == 4


def test_where_the_operator_allows_no_retries_that_is_said() -> None:
    with pytest.raises(Refusal, match=r"options.retries: is 1; it should be nothing: at most 0 are allowed"):
        check_options(api.Options(retries=1), Most(retries=0))


@pytest.mark.parametrize("notify", ["digest", "failures"])
def test_who_wants_emails_without_an_address_is_told_that_there_will_be_none(registry: Running, notify: str) -> None:
    silent = registry.register(notify_on_failure="", notify_on_success="", options=api.Options(notify=notify))
    told = registry.register(options=api.Options(notify=notify))

    assert [note for note in silent.notes if "nobody is told" in note]
    assert not [note for note in told.notes if "nobody is told" in note]


def test_descriptions_do_not_make_a_list_larger_than_clients_in_the_field_take(registry: Running) -> None:
    said = "\N{SNOWMAN}" * 2000
    for number in range(4):
        registry.register(name=f"h{number}", options=api.Options(description=said))
    whole = registry.handlers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("registry.public.LIST_BYTES", 20_000)
        short = registry.handlers()

    assert {one.options.description for one in whole} == {said}
    assert {one.options.description for one in short} == {""} and [one.name for one in short] == [
        "h0",
        "h1",
        "h2",
        "h3",
    ]


def test_tags_are_kept_without_blanks_around_them_as_those_of_events_are(registry: Running) -> None:
    assert list(registry.register(tags=[" north ", "north", "a b\t"]).handler.tag) == ["a b", "north"]
