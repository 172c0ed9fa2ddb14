"""Bytes on the wire to plain mappings and back; the only place that decodes a message.

Read: Avro single-object encoding (C3 01 + fingerprint), the Schema Registry's framing (00 + id), JSON. Written: the first.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastavro

from schemas.contracts import Contract, by_fingerprint, contracts
from schemas.errors import InvalidMessage
from schemas.json_form import fit

SINGLE_OBJECT = b"\xc3\x01"  # Avro 1.11 specification, "Single-object encoding"
REGISTRY = b"\x00"  # Confluent wire format: magic byte 0, 4 bytes schema id, big-endian
AVRO_TYPE = b"application/avro"
JSON_TYPE = b"application/json"

Headers = Sequence[tuple[str, bytes]]
SchemaById = Callable[[int], Contract]


class UnknownSchema(InvalidMessage):
    """The message names a schema that nobody here knows (yet): fingerprint has 8 bytes."""

    def __init__(self, fingerprint: bytes, data: bytes) -> None:
        super().__init__(f"unknown Avro schema fingerprint {fingerprint.hex()}", data)
        self.fingerprint = fingerprint


def encode(name: str, plain: Mapping[str, Any]) -> bytes:
    """The mapping in Avro single-object encoding by the contract of that name.

    Raises InvalidMessage when the mapping does not fit; its reason names the field.
    """
    contract = contracts()[name]
    out = io.BytesIO()
    out.write(SINGLE_OBJECT + contract.fingerprint)
    try:
        fastavro.schemaless_writer(out, contract.parsed, plain, strict=False)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidMessage(f"{name}: does not fit its contract: {error!s}") from error
    return out.getvalue()


def decode(name: str, value: bytes | None, headers: Headers = (), by_id: SchemaById | None = None) -> dict[str, Any]:
    """The message as a mapping by the present contract of that name (Avro's resolution rules).

    value: the message's bytes; headers: its Kafka headers; by_id: how to find a schema of a Schema Registry.
    Raises InvalidMessage (reason, bytes), UnknownSchema for a fingerprint nobody here knows.
    """
    if not value:
        raise InvalidMessage(
            f"{name}: the message is empty; it should be Avro (single-object encoding) or JSON", value or b""
        )
    kind = dict(headers).get("content-type", b"").split(b";")[0].strip()
    if kind.endswith(b"json") or value.lstrip()[:1] == b"{":
        return _decode_json(name, value)
    if value.startswith(SINGLE_OBJECT):
        writer = by_fingerprint().get(value[2:10])
        if writer is None:
            raise UnknownSchema(value[2:10], value)
        return _read(name, writer, value[10:], value)
    if value.startswith(REGISTRY) and len(value) > 5:
        if by_id is None:
            raise InvalidMessage(f"{name}: framed for a Schema Registry, but no registry is configured", value)
        return _read(name, by_id(int.from_bytes(value[1:5], "big")), value[5:], value)
    raise InvalidMessage(
        f"{name}: neither Avro single-object encoding (starts with c301) nor JSON (starts with '{{'): "
        f"starts with {value[:4].hex()}",
        value,
    )


def _read(name: str, writer: Contract, body: bytes, value: bytes) -> dict[str, Any]:
    source = io.BytesIO(body)
    try:
        plain = fastavro.schemaless_reader(source, writer.parsed, contracts()[name].parsed)
    except Exception as error:
        raise InvalidMessage(
            f"{name}: not readable by its schema: {error.__class__.__name__}: {error}", value
        ) from error
    if source.read(1):
        raise InvalidMessage(f"{name}: bytes are left over after the record", value)
    if not isinstance(plain, dict):
        raise InvalidMessage(f"{name}: not a record", value)
    return plain


def _decode_json(name: str, value: bytes) -> dict[str, Any]:
    try:
        given = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"{name}: not readable as JSON: {error}", value) from error
    try:
        plain = fit(contracts()[name].raw, given, where="")
    except ValueError as error:
        raise InvalidMessage(f"{name}: {error}", value) from error
    assert isinstance(plain, dict)
    return plain


def cloud_event_headers(hook: str, request_id: str, source: str, time: str) -> list[tuple[str, bytes]]:
    """Kafka headers of an event: CloudEvents 1.0, Kafka binding, binary mode (ce_*), and the content type.

    request_id: the event's RequestID; source: a URI reference of the producer, for instance '/ctingress'; time: RFC 3339.
    """
    attributes = {"ce_specversion": "1.0", "ce_id": request_id, "ce_source": source, "ce_type": hook, "ce_time": time}
    return [("content-type", AVRO_TYPE), *((k, v.encode()) for k, v in attributes.items())]
