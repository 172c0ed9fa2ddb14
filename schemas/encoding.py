"""Bytes on the wire to plain mappings and back; the only place that decodes a message.

Read: Avro single-object encoding (C3 01 + fingerprint), the Schema Registry's framing (00 + id), JSON. Written: the first.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro

from schemas.contracts import Contract, by_fingerprint, by_id, contracts, written_id
from schemas.errors import InvalidMessage
from schemas.json_form import fit

SINGLE_OBJECT = b"\xc3\x01"  # Avro 1.11 specification, "Single-object encoding"
REGISTRY = b"\x00"  # Confluent wire format: magic byte 0, 4 bytes schema id, big-endian
AVRO_TYPE = b"application/avro"
JSON_TYPE = b"application/json"
CLOUD_EVENT_TYPE = b"application/cloudevents+json"

Headers = Sequence[tuple[str, bytes]]


class UnknownSchema(InvalidMessage):
    """The message names a schema that nobody here knows (yet): fingerprint has 8 bytes."""

    def __init__(self, fingerprint: bytes, data: bytes) -> None:
        super().__init__(f"unknown Avro schema fingerprint {fingerprint.hex()}", data)
        self.fingerprint = fingerprint


def encode(name: str, plain: Mapping[str, Any]) -> bytes:
    """The mapping by the contract of that name: in Avro single-object encoding, or in the Schema Registry's framing where the
    process has registered the contract with one (contracts.write_with_id).

    Raises InvalidMessage when the mapping does not fit; its reason names the field.
    """
    contract = contracts()[name]
    out = io.BytesIO()
    schema_id = written_id(name)
    out.write(SINGLE_OBJECT + contract.fingerprint if schema_id is None else REGISTRY + schema_id.to_bytes(4, "big"))
    try:
        fastavro.schemaless_writer(out, contract.parsed, plain, strict=False)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidMessage(f"{name}: does not fit its contract: {error!s}") from error
    return out.getvalue()


def decode(name: str, value: bytes | None, headers: Headers = ()) -> dict[str, Any]:
    """The message as a mapping by the present contract of that name (Avro's resolution rules).

    value: the message's bytes; headers: its Kafka headers. Schemas of others have to be learned first (stream/schema_book.py).
    Raises InvalidMessage (reason, bytes), UnknownSchema for a fingerprint nobody here knows.
    """
    if not value:
        raise InvalidMessage(
            f"{name}: the message is empty; it should be Avro (single-object encoding) or JSON", value or b""
        )
    kind = dict(headers).get("content-type", b"").split(b";")[0].strip().lower()
    if kind.endswith(b"json") or value.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{":
        return _decode_json(name, value, kind)
    fingerprint, schema_id = fingerprint_of(value), registry_id_of(value)
    if fingerprint is not None:
        writer = by_fingerprint().get(fingerprint)
        if writer is None:
            raise UnknownSchema(fingerprint, value)
        return _read(name, writer, value[10:], value)
    if schema_id is not None:
        writer = by_id().get(schema_id)
        if writer is None:
            raise InvalidMessage(
                f"{name}: framed for a Schema Registry with schema id {schema_id}, which nobody here knows; "
                "is EVENTPROC_SCHEMA_REGISTRY_URL set, and has that registry this id?",
                value,
            )
        return _read(name, writer, value[5:], value)
    raise InvalidMessage(
        f"{name}: neither Avro single-object encoding (starts with c301) nor JSON (starts with '{{'): "
        f"starts with {value[:4].hex()}",
        value,
    )


def fingerprint_of(value: bytes) -> bytes | None:
    """The 8 bytes that name the schema of a single-object encoded value; None for any other value."""
    return value[2:10] if value.startswith(SINGLE_OBJECT) and len(value) >= 10 else None


def registry_id_of(value: bytes) -> int | None:
    """The schema id in the Schema Registry's framing; None for any other value."""
    return int.from_bytes(value[1:5], "big") if value.startswith(REGISTRY) and len(value) > 5 else None


def _read(name: str, writer: Contract, body: bytes, value: bytes) -> dict[str, Any]:
    source = io.BytesIO(body)
    try:
        ours = contracts()[name]
        same = (
            writer.fingerprint == ours.fingerprint
        )  # then there is nothing to resolve, which takes longer than to read
        plain = fastavro.schemaless_reader(source, writer.parsed, None if same else ours.parsed)
    except Exception as error:
        raise InvalidMessage(
            f"{name}: not readable by its schema: {error.__class__.__name__}: {error}", value
        ) from error
    if source.read(1):
        raise InvalidMessage(f"{name}: bytes are left over after the record", value)
    if not isinstance(plain, dict):
        raise InvalidMessage(f"{name}: not a record", value)
    return plain


def _decode_json(name: str, value: bytes, kind: bytes) -> dict[str, Any]:
    try:
        given = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"{name}: not readable as JSON: {error}", value) from error
    try:
        if kind == CLOUD_EVENT_TYPE:
            given = _data_of(given)
        plain = fit(contracts()[name].raw, given, where="")
    except ValueError as error:
        raise InvalidMessage(f"{name}: {error}", value) from error
    except Exception as error:  # whatever a reader trips over is the message's fault: it must not stop a station
        raise InvalidMessage(f"{name}: not readable as JSON: {type(error).__name__}: {error}", value) from error
    assert isinstance(plain, dict)
    return plain


def _data_of(given: Any) -> Any:
    """What a CloudEvent in structured mode carries (CloudEvents 1.0, JSON format, section 3.1)."""
    if not isinstance(given, Mapping) or not isinstance(given.get("data"), Mapping):
        raise ValueError("a CloudEvent in structured mode should have the event as an object in its 'data'")
    return given["data"]


def cloud_event_headers(hook: str, request_id: str, source: str, time: str) -> list[tuple[str, bytes]]:
    """Kafka headers of an event: CloudEvents 1.0, Kafka binding, binary mode (ce_*), and the content type.

    request_id: the event's RequestID; source: a URI reference of the producer, for instance '/ctingress'; time: RFC 3339.
    """
    attributes = {"ce_specversion": "1.0", "ce_id": request_id, "ce_source": source, "ce_type": hook, "ce_time": time}
    return [("content-type", AVRO_TYPE), *((k, v.encode()) for k, v in attributes.items())]
