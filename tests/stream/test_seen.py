"""Events that were consumed are in the ledger or among the dead letters; what is in neither is named."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Sequence

import pytest

from schemas.topics import topics
from stream.letters import Rejected, read_letters, send_letter
from stream.memory import MemoryBroker
from stream.messages import Message
from stream.schema_book import SchemaBook
from stream.seen import lost_events

HOOK = "ctingress.on_complete"
GROUP = "dispatchers"


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics((), 1), 1, 1024 * 1024)
    return broker


def sent(broker: MemoryBroker, value: bytes | None = None, commit: bool = True) -> Message:
    """An event, or what is given, in the topic."""
    event = {
        "DataSets": [], "File": "a.zip", "RequestID": str(uuid.uuid4()), "SubmittedAt": "2020-10-29T21:58:15Z", "Tags": [],
    }  # fmt: skip
    broker.producer().send(HOOK, json.dumps(event).encode() if value is None else value)
    message = broker.messages(HOOK)[-1]
    if commit:
        broker.commits[GROUP][(HOOK, 0)] = message.offset + 1
    return message


def request_id(message: Message) -> str:
    return str(json.loads(message.value or b"")["RequestID"])


def lost(broker: MemoryBroker, known: Sequence[Message], start: int = 0) -> list[str]:
    book = SchemaBook(broker.admin(), broker.producer())
    ids = {request_id(message) for message in known}
    found, upto = lost_events(
        broker.admin(), book, HOOK, GROUP, lambda some: [one for one in some if one not in ids], start={0: start}
    )
    assert upto == broker.admin().committed(GROUP, HOOK)
    return [str(one) for one in found]


def test_what_is_known_or_not_consumed_yet_is_not_lost(broker: MemoryBroker) -> None:
    first = sent(broker)
    sent(broker, commit=False)

    assert lost(broker, [first]) == []


def test_an_event_that_nobody_knows_is_named_by_its_place_and_id(broker: MemoryBroker) -> None:
    first, second = sent(broker), sent(broker)

    assert lost(broker, [first]) == [f"{HOOK}/0/1: RequestID {request_id(second)}"]
    assert lost(broker, [first], start=2) == []


def test_what_cannot_be_read_is_lost_unless_it_is_a_dead_letter(broker: MemoryBroker) -> None:
    bad = sent(broker, b"rubbish")

    (one,) = lost(broker, [])
    assert one.startswith(f"{HOOK}/0/0: cannot be read (ctingress.on_complete: neither Avro")
    send_letter(broker.producer(), Rejected(bad, "neither Avro"), GROUP)
    assert lost(broker, []) == []


@pytest.mark.parametrize("tag", ["9" * 400, "1" * 5000, "[" * 900 + "]" * 900])
def test_whatever_a_message_holds_the_reader_goes_on(broker: MemoryBroker, tag: str) -> None:
    recording = {"Name": "/a", "Station": "s", "Device": "d", "Revision": 1999, "LineFrequencyHz": "?"}
    event = {
        "DataSets": [], "File": "a.zip", "RequestID": str(uuid.uuid4()), "SubmittedAt": "2020-10-29T21:58:15Z",
        "Recordings": [recording],
    }  # fmt: skip
    bad = sent(broker, json.dumps(event).replace('"?"', tag).encode())

    (one,) = lost(broker, [])

    assert one.startswith(f"{HOOK}/0/{bad.offset}: cannot be read (")


def test_a_batch_that_the_brokers_client_could_not_read_is_told_with_its_reason(broker: MemoryBroker) -> None:
    bad = dataclasses.replace(sent(broker, b"\x1f\x8b"), unreadable="a batch of messages cannot be read: why")
    broker.logs[(HOOK, 0)][0] = bad

    assert lost(broker, []) == [f"{HOOK}/0/0: cannot be read (a batch of messages cannot be read: why)"]


def test_letters_are_read_from_a_number_on_and_something_else_among_them_is_told_as_such(broker: MemoryBroker) -> None:
    send_letter(broker.producer(), Rejected(sent(broker, b"one"), "why"), GROUP)
    broker.producer().send("eventproc.dead-letters", b"hello")
    book = SchemaBook(broker.admin(), broker.producer())

    letters = list(read_letters(broker.admin(), book))
    assert [(one.number, one.origin) for one in letters] == [(0, f"{HOOK}/0/0"), (1, "eventproc.dead-letters/0/1")]
    assert letters[1].letter.reason.startswith("not a dead letter of ours")
    assert [one.number for one in read_letters(broker.admin(), book, first=1)] == [1]
