"""Dead letters, as an operator meets them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher.dispatch import Dispatch
from ledger import Ledger
from ledger.handlers import HandlerView
from ledger.rules import Rules
from ledger.runs import runs
from schemas import contracts
from schemas.errors import TryLater
from schemas.events import run_id
from schemas.topics import DEAD_LETTERS
from stream.letters import Rejected, send_letter
from stream.memory import MemoryBroker, MemorySender
from stream.messages import Message
from stream.schema_book import SchemaBook
from stream.schema_registry import SchemaRegistry
from tests.schema_registry import serving

from .conftest import HOOK, call, told

HEADERS = (("ce_id", b"1234"), ("content-type", b"application/json"))


def a_letter(
    broker: MemoryBroker, value: bytes = b"{broken", topic: str = HOOK, reason: str = "not readable as JSON"
) -> None:
    send_letter(
        broker.producer(), Rejected(Message(topic, 0, 7, b"key", value, HEADERS, 0), reason), "eventproc-dispatcher"
    )


def test_they_are_listed_with_origin_and_reason_and_found_by_filters(broker: MemoryBroker, ledger: Ledger) -> None:
    assert "There are no dead letters." in call("dead-letters", "list")
    a_letter(broker)
    a_letter(broker, topic="eventproc.results", reason="result: the message is empty")

    shown = call("dead-letters", "list")
    assert f"{HOOK}/0/7" in shown and "not readable as JSON" in shown and "2 of 2" in shown
    assert [one["number"] for one in told("dead-letters", "list", "--topic", HOOK)] == [0]
    assert [one["number"] for one in told("dead-letters", "list", "--reason", "is empty")] == [1]
    assert told("dead-letters", "list", "--until", "1h") == []
    assert len(told("dead-letters", "list", "--since", "1h", "--limit", "1")) == 1


def test_one_is_shown_whole_and_its_bytes_can_be_saved(broker: MemoryBroker, ledger: Ledger, tmp_path: Path) -> None:
    a_letter(broker, b"\xff\x00[red]not markup")

    shown = told("dead-letters", "show", "0", "--output", str(tmp_path / "value"))

    assert (shown["topic"], shown["offset"], shown["key"], shown["headers"]["ce_id"]) == (HOOK, 7, "key", "1234")
    assert (tmp_path / "value").read_bytes() == b"\xff\x00[red]not markup"
    assert "header ce_id" in call("dead-letters", "show", "0")
    assert "there is no dead letter 5" in call("dead-letters", "show", "5", code=1)


def test_a_dry_run_sends_nothing_and_a_redriven_message_is_as_it_was_and_goes_once(
    broker: MemoryBroker, ledger: Ledger
) -> None:
    a_letter(broker)
    a_letter(broker, b"another")

    assert "1 would be sent" in call("dead-letters", "redrive", "0", "--dry-run")
    assert broker.messages(HOOK) == []

    assert "1 sent; 0 were redriven before" in call("dead-letters", "redrive", "0")
    (message,) = broker.messages(HOOK)
    assert (message.key, message.value, message.headers) == (b"key", b"{broken", HEADERS)

    assert "1 sent; 1 were redriven before" in call("dead-letters", "redrive", "--topic", HOOK)
    assert [m.value for m in broker.messages(HOOK)] == [b"{broken", b"another"]
    assert all(one["redriven_at"] for one in told("dead-letters", "list"))
    assert "1 sent" in call("dead-letters", "redrive", "1", "--again")


def test_nothing_is_redriven_unasked_or_unknown(broker: MemoryBroker, ledger: Ledger) -> None:
    a_letter(broker)

    assert "which ones?" in call("dead-letters", "redrive", code=2)
    assert "has the number 9; nothing was sent" in call("dead-letters", "redrive", "0", "9", code=1)
    assert broker.messages(HOOK) == []


def test_a_message_that_was_too_large_to_be_kept_whole_is_not_redriven(ledger: Ledger, broker: MemoryBroker) -> None:
    broker.max_message_bytes = 1024 * 1024
    a_letter(broker, bytes(3 * 1024 * 1024))

    assert "not sent: 0, for its bytes were too many to be kept whole" in call("dead-letters", "redrive", "0", code=1)
    assert broker.messages(HOOK) == []


def test_a_message_that_the_topic_no_longer_takes_is_told_and_the_others_go(
    ledger: Ledger, broker: MemoryBroker
) -> None:
    a_letter(broker, bytes(2 * 1024 * 1024))
    a_letter(broker)
    broker.max_message_bytes = 1024 * 1024

    found = told("dead-letters", "redrive", "--since", "1h")

    assert [one["number"] for one in found["letters"]] == [1]
    ((number, why),) = [(one["number"], one["why"]) for one in found["not_sent"]]
    assert number == 0 and "2097152 bytes; at most 1048576 are allowed" in why


def test_thousands_come_in_pages(ledger: Ledger, broker: MemoryBroker) -> None:
    for number in range(2500):
        a_letter(broker, b"{%d" % number)

    assert "50 of 2500 dead letters" in (shown := call("dead-letters", "list")) and "--before 2450" in shown
    assert [one["number"] for one in told("dead-letters", "list", "--before", "3")] == [0, 1, 2]
    assert len(told("dead-letters", "list", "--limit", "10000")) == 2500
    assert told("dead-letters", "show", "1234")["value_hex"] == b"{1234".hex()
    assert "2500 would be sent" in call("dead-letters", "redrive", "--topic", HOOK, "--dry-run")


def test_a_redrive_that_breaks_off_says_how_far_it_came_and_goes_on(
    ledger: Ledger, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        a_letter(broker)
    send = MemorySender.send

    def fails_at_the_second(self: MemorySender, *args: Any, **kwargs: Any) -> None:
        if broker.messages(HOOK):
            raise TryLater("kafka: away")
        send(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MemorySender, "send", fails_at_the_second)
        broken = call("dead-letters", "redrive", "--topic", HOOK, code=75)
    assert "(1 of 3 were sent; the same command goes on)" in broken
    assert "2 sent; 1 were redriven before" in call("dead-letters", "redrive", "--topic", HOOK)
    assert len(broker.messages(HOOK)) == 3


def test_a_tombstone_and_binary_keys_are_shown_as_what_they_are(ledger: Ledger, broker: MemoryBroker) -> None:
    send_letter(
        broker.producer(), Rejected(Message(HOOK, 1, 2, b"\xff", None, (("h", b"\x00\x01"),), 0), "is empty"), "group"
    )

    shown = call("dead-letters", "show", "0")
    assert "none: a tombstone" in shown and "hex ff" in shown and "hex 0001" in shown
    assert "1 sent" in call("dead-letters", "redrive", "0")
    assert broker.messages(HOOK)[0].value is None


def test_letters_written_with_a_schema_registry_are_read(
    ledger: Ledger, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_a_new_process() -> None:
        for name in ("_learned", "_ids", "_written"):
            monkeypatch.setattr(contracts, name, {})

    with serving() as url:
        as_a_new_process()
        SchemaBook(broker.admin(), broker.producer(), SchemaRegistry(url)).publish([("dead_letter", DEAD_LETTERS)])
        a_letter(broker)
        as_a_new_process()
        monkeypatch.setenv("EVENTPROC_SCHEMA_REGISTRY_URL", url)

        (one,) = told("dead-letters", "list")

    assert one["reason"] == "not readable as JSON"


def test_something_else_in_the_topic_is_shown_as_what_it_is(broker: MemoryBroker, ledger: Ledger) -> None:
    broker.producer().send(DEAD_LETTERS, b"hello", key=b"k")

    (one,) = told("dead-letters", "list")
    assert one["reason"].startswith("not a dead letter of ours")
    assert "not sent: 0, for no dead letter of ours" in call("dead-letters", "redrive", "--since", "1h", code=1)
    assert len(broker.messages(DEAD_LETTERS)) == 1


def test_a_redriven_event_has_the_ids_it_would_have_had_and_runs_once_however_often_it_is_redriven(
    broker: MemoryBroker, ledger: Ledger, handler: Callable[..., HandlerView]
) -> None:
    view, request_id = handler("h"), "5a0f0f5c-0000-4000-8000-000000000001"
    event = {
        "DataSets": [],
        "File": "a.zip",
        "RequestID": request_id,
        "SubmittedAt": "2020-10-29T21:58:15Z",
        "Tags": [],
    }
    a_letter(broker, json.dumps(event).encode(), reason="unknown Avro schema fingerprint")
    dispatch = Dispatch(ledger, broker.producer(), Rules())

    for again in ((), ("--again",)):
        call("dead-letters", "redrive", "0", *again)
        assert dispatch.handle([broker.messages(HOOK)[-1]]) == []

    assert len(broker.messages(HOOK)) == 2
    with ledger.read() as session:
        assert [run.run_id for run in runs(session, request_id)] == [run_id(HOOK, request_id, view.id)]
