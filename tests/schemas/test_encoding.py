"""Messages in and out: the three encodings, and what a bad one is told."""

import json

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.contracts import by_fingerprint, contract_of, contracts, documented_arguments, hook_names, learn_id
from schemas.encoding import UnknownSchema, decode, encode
from schemas.errors import InvalidMessage
from schemas.events import read_event, run_id
from schemas.records import (
    DeadLetter,
    Outcome,
    Result,
    RunError,
    Task,
    Upload,
    dead_letter_from,
    result_from,
    task_from,
    to_plain,
)

HOOK = "ctingress.on_complete"
RUN = "5f0c2c55-55cb-5a1e-9a1c-0d6f9f3d2b10"
REQUEST = "5e0c7a9e-6c5c-4a52-9d8a-0b8f0d9d2c11"


def an_event(**changed: object) -> dict[str, object]:
    stream = {"Uuid": "a" * 32, "StartNs": 1591844350000000000, "EndNs": 1591844351000000000, "ProcessedAtNs": 1}
    event: dict[str, object] = {
        "DataSets": [
            {"Name": "/a.cfg", "Success": True, "Error": "", "Streams": [stream]},
            {"Name": "/b.cfg", "Success": False, "Error": "no DAT", "Streams": None},
        ],
        "File": "a.zip",
        "RequestID": REQUEST,
        "SubmittedAt": "2020-10-29T21:58:15.09246084Z",
        "Tags": ["north", "line-4", "north"],
        "Recordings": [],
    }
    return {**event, **changed}


def test_the_fingerprint_is_the_specification_s_crc_64_in_sending_order() -> None:
    # Avro 1.11: CRC-64-AVRO of "null" is 63dd24e7cc258f8a; single-object encoding sends it little-endian
    assert fingerprint(to_parsing_canonical_form("null"), "CRC-64-AVRO") == "8a8f25cce724dd63"


def test_an_event_comes_back_as_it_was_sent() -> None:
    given = an_event()

    message = encode(HOOK, given)

    assert message[:2] == b"\xc3\x01"
    assert decode(HOOK, message) == given


def test_every_contract_is_found_by_its_fingerprint() -> None:
    assert {c.name for c in by_fingerprint().values()} >= set(contracts())
    assert hook_names() == (HOOK,)


def test_handlers_get_tags_and_recordings_only_when_they_name_them() -> None:
    assert documented_arguments(HOOK) == ("DataSets", "File", "RequestID", "SubmittedAt")


def test_json_needs_no_union_tags_and_takes_64_bit_integers_as_text() -> None:
    given = an_event()
    given["DataSets"][0]["Streams"][0]["StartNs"] = "1591844350000000001"  # type: ignore[index]
    del given["Recordings"]

    event = read_event(HOOK, json.dumps(given).encode())

    assert event.arguments["DataSets"][0]["Streams"][0]["StartNs"] == 1591844350000000001
    assert event.arguments["DataSets"][1]["Streams"] is None
    assert event.arguments["Recordings"] == []
    assert event.tags == ("line-4", "north")
    assert event.submitted_at == "2020-10-29T21:58:15.09246084Z"
    assert json.loads(event.body()) == event.arguments


def test_json_with_avro_s_own_union_tags_is_read_too() -> None:
    given = an_event()
    given["DataSets"][0]["Streams"] = {"array": given["DataSets"][0]["Streams"]}  # type: ignore[index]
    given["Recordings"] = [
        {
            "Name": "/a",
            "Station": "s",
            "Device": "d",
            "Revision": 1999,
            "TriggerNs": {"long": "5"},
            "Hdr": {"string": "h"},
        }
    ]

    event = read_event(HOOK, json.dumps(given).encode())

    assert event.arguments["DataSets"] == an_event()["DataSets"]
    recording = event.arguments["Recordings"][0]
    assert (recording["TriggerNs"], recording["Hdr"], recording["Inf"]) == (5, "h", None)


def test_a_cloud_event_is_read_in_both_modes() -> None:
    binary = [("content-type", b"application/json"), ("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"x")]
    envelope = {"specversion": "1.0", "id": "1", "source": "/x", "type": HOOK, "data": an_event()}
    structured = [("content-type", b"application/cloudevents+json; charset=UTF-8")]

    assert read_event(HOOK, json.dumps(an_event()).encode(), binary).request_id == REQUEST
    assert read_event(HOOK, json.dumps(envelope).encode(), structured).request_id == REQUEST
    with pytest.raises(InvalidMessage, match="in structured mode should have the event as an object in its 'data'"):
        read_event(HOOK, json.dumps({**envelope, "data": "text"}).encode(), structured)


def test_json_may_begin_with_a_byte_order_mark() -> None:
    assert read_event(HOOK, b"\xef\xbb\xbf" + json.dumps(an_event()).encode()).request_id == REQUEST


def test_json_may_be_told_by_a_header() -> None:
    event = read_event(
        HOOK, b"\n " + json.dumps(an_event()).encode(), [("content-type", b"application/json; charset=utf-8")]
    )

    assert event.request_id == REQUEST


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"RequestID": "seven"}, "RequestID: should be a UUID"),
        ({"SubmittedAt": "yesterday"}, "SubmittedAt: should be RFC 3339"),
        ({"SubmittedAt": "2026-02-30T00:00:00Z"}, "SubmittedAt: should be RFC 3339"),
        ({"SubmittedAt": "2026-01-01T12:00:00+01:00"}, "SubmittedAt: should be RFC 3339 in UTC"),
        ({"Tags": "north"}, "Tags: should be a list, is 'north'"),
        ({"Tags": [7]}, r"Tags\[0\]: should be text, is 7"),
        ({"Tags": ["\ud800"]}, r"Tags\[0\]: has a lone surrogate"),
        ({"DataSets": [{"Name": "/a.cfg", "Success": "yes"}]}, r"DataSets\[0\].Success: should be true or false"),
        ({"DataSets": [{"Name": "/a.cfg"}]}, r"DataSets\[0\].Success is missing"),
        (
            {
                "DataSets": [
                    {
                        "Name": "/",
                        "Success": True,
                        "Streams": [{"Uuid": "", "StartNs": 2**63, "EndNs": 0, "ProcessedAtNs": 0}],
                    }
                ]
            },
            r"Streams\[0\].StartNs: should be a whole number",
        ),
        (
            {
                "DataSets": [
                    {
                        "Name": "/",
                        "Success": True,
                        "Streams": [{"Uuid": "", "StartNs": True, "EndNs": 0, "ProcessedAtNs": 0}],
                    }
                ]
            },
            r"Streams\[0\].StartNs: should be a whole number",
        ),
    ],
)
def test_a_json_event_that_does_not_fit_is_told_where_and_what_would_be_right(
    changed: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidMessage, match=says) as told:
        read_event(HOOK, json.dumps(an_event(**changed)).encode())

    assert told.value.data


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"hello", "neither Avro"),
        (b"{", "not readable as JSON"),
        (b"\x00\x00\x00\x00\x07abc", "is EVENTPROC_SCHEMA_REGISTRY_URL set"),
        (b"\xc3\x01" + bytes(8) + b"abc", "unknown Avro schema"),
        (b"[" * 100_000, "neither Avro"),
        (b"{" + b'"a":[' * 100_000, "not readable as JSON"),
    ],
)
def test_bytes_that_are_no_event_are_named_for_what_they_are(value: bytes | None, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        read_event(HOOK, value)


def test_a_truncated_or_overlong_event_is_invalid() -> None:
    message = encode(HOOK, an_event())

    for wrong in (message[:-3], message + b"x"):
        with pytest.raises(InvalidMessage):
            decode(HOOK, wrong)


def test_an_unknown_fingerprint_is_told_apart_so_that_it_can_be_waited_for() -> None:
    with pytest.raises(UnknownSchema) as told:
        decode("task", b"\xc3\x01" + b"12345678" + b"rest")

    assert told.value.fingerprint == b"12345678"


def test_a_schema_registry_s_message_is_read_with_the_schema_it_names() -> None:
    older = dict(contracts()["task"].raw)
    writer = contract_of("task", older)
    plain = {"run_id": "r", "owner": "alice", "runtime": "py3.11", "hook": HOOK, "dispatched_at_ns": 5}
    import io

    body = io.BytesIO()
    fastavro.schemaless_writer(body, writer.parsed, plain)
    learn_id(7, writer)

    assert decode("task", b"\x00\x00\x00\x00\x07" + body.getvalue()) == plain
    with pytest.raises(
        InvalidMessage, match="schema id 8, which nobody here knows; is EVENTPROC_SCHEMA_REGISTRY_URL set"
    ):
        decode("task", b"\x00\x00\x00\x00\x08" + body.getvalue())


def test_results_and_dead_letters_come_back_as_they_were() -> None:
    result = Result(
        RUN, "l" * 32, Outcome.FAILED, "exec-1", error=RunError("ZeroDivisionError", "division by zero", "Traceback"),
        uploads=(Upload("c" * 32, "a.png", 5),), cpu_s=0.5, peak_memory_bytes=7,
    )  # fmt: skip
    letter = DeadLetter("t", 1, 2, b"k", None, (("a", b"b"),), "g", "why", 9)

    assert result_from(decode("result", encode("result", to_plain(result)))) == result
    assert dead_letter_from(decode("dead_letter", encode("dead_letter", to_plain(letter)))) == letter


def test_an_executor_may_not_report_an_outcome_of_the_ledger_s_own() -> None:
    plain = to_plain(Result(RUN, "l", Outcome.ABANDONED))

    with pytest.raises(ValueError, match="not for an executor"):
        result_from(plain)


@pytest.mark.parametrize("run_id", ["", "r", RUN + "\0", "\0" * 36, RUN.replace("-", ""), RUN + "\n"])
def test_a_run_id_is_a_uuid_in_tasks_and_results(run_id: str) -> None:
    task = Task(run_id, "alice", "py3.11", HOOK, 5)

    with pytest.raises(ValueError, match="run_id: should be a UUID as text"):
        task_from(to_plain(task))
    with pytest.raises(ValueError, match="run_id: should be a UUID as text"):
        result_from(to_plain(Result(run_id, "l", Outcome.SUCCEEDED)))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_result_s_seconds_are_a_number(seconds: float) -> None:
    with pytest.raises(ValueError, match="cpu_s: should be a number of seconds"):
        result_from(to_plain(Result(RUN, "l", Outcome.SUCCEEDED, cpu_s=seconds)))


def test_the_run_id_depends_on_event_handler_and_replay_alone() -> None:
    first = run_id(HOOK, REQUEST, 7)

    assert first == run_id(HOOK, REQUEST, 7)
    assert len({first, run_id(HOOK, REQUEST, 8), run_id(HOOK, REQUEST, 7, "again"), run_id("other", REQUEST, 7)}) == 4


def test_every_hook_names_what_identifies_its_events() -> None:
    for hook in hook_names():
        fields = {field["name"] for field in contracts()[hook].raw["fields"]}
        assert {"RequestID", "SubmittedAt", "Tags"} <= fields
