"""Stations of the last release and of this one understand each other while an upgrade rolls: Avro, protobuf, tables.

schemas/history/ has the contracts of the last release; tests/schemas/last_release/ has messages that it wrote. `make release` adds to both.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from deploy.release import as_json
from schemas.encoding import decode
from schemas.generated import eventprocapi_pb2, executorapi_pb2

HISTORY = Path(__file__).resolve().parents[2] / "schemas" / "history" / "proto"
WRITTEN = sorted((Path(__file__).parent / "last_release").glob("*.json"))
SAMPLES: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_INT32: -3, FieldDescriptor.CPPTYPE_INT64: 1 << 60, FieldDescriptor.CPPTYPE_UINT32: 3,
    FieldDescriptor.CPPTYPE_UINT64: 1 << 63, FieldDescriptor.CPPTYPE_DOUBLE: 0.5, FieldDescriptor.CPPTYPE_FLOAT: 0.5,
    FieldDescriptor.CPPTYPE_BOOL: True, FieldDescriptor.CPPTYPE_ENUM: 1,
}  # fmt: skip


@cache
def last_pool() -> descriptor_pool.DescriptorPool:
    """The messages of the newest protos in the history, apart from ours of the same names."""
    newest = max(HISTORY.iterdir(), key=lambda folder: int(folder.name))
    names = sorted(path.name for path in newest.glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{newest}", "--descriptor_set_out=/dev/stdout", *names]
    files = descriptor_pb2.FileDescriptorSet.FromString(subprocess.run(command, capture_output=True, check=True).stdout)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def ours(name: str) -> Descriptor:
    module = eventprocapi_pb2 if name.startswith("eventprocapi.") else executorapi_pb2
    found: Descriptor = module.DESCRIPTOR.message_types_by_name[name.partition(".")[2]]
    return found


def files() -> Iterator[Any]:
    for name in ("eventprocapi.proto", "executorapi.proto"):
        yield last_pool().FindFileByName(name)


def names() -> list[str]:
    return [message.full_name for file in files() for message in file.message_types_by_name.values()]


def filled(descriptor: Descriptor) -> Message:
    """A message with a value in every field (the last of a oneof)."""
    made = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            assert field.message_type is not None
            value: Any = filled(field.message_type)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            value = b"\x00\xff" if field.type == FieldDescriptor.TYPE_BYTES else f"a {field.name}"
        else:
            value = SAMPLES[field.cpp_type]
        if field.is_repeated:
            getattr(made, field.name).extend([value, value])
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(made, field.name).CopyFrom(value)
        else:
            setattr(made, field.name, value)
    return made


@pytest.mark.parametrize("name", names())
def test_each_field_of_the_last_release_is_what_it_was(name: str) -> None:
    old, new = last_pool().FindMessageTypeByName(name), ours(name)
    shapes = [{field.number: (field.name, field.type, field.is_repeated) for field in one.fields} for one in (old, new)]

    assert {number: shapes[1].get(number) for number in shapes[0]} == shapes[0]


@pytest.mark.parametrize("name", names())
def test_what_the_last_release_sends_is_read_whole_and_the_other_way_round(name: str) -> None:
    old, new = last_pool().FindMessageTypeByName(name), ours(name)
    sent = filled(old)
    there = message_factory.GetMessageClass(new)()
    there.ParseFromString(sent.SerializeToString())
    back = message_factory.GetMessageClass(old)()
    back.ParseFromString(there.SerializeToString())
    assert back == sent

    newer = filled(new)
    read = message_factory.GetMessageClass(old)()
    read.ParseFromString(newer.SerializeToString())  # what it does not know it keeps
    again = message_factory.GetMessageClass(new)()
    again.ParseFromString(read.SerializeToString())
    assert again == newer


def test_each_call_of_the_last_release_is_still_answered() -> None:
    for file in files():
        module = eventprocapi_pb2 if file.name == "eventprocapi.proto" else executorapi_pb2
        for service in file.services_by_name.values():
            now = {m.name: m for m in module.DESCRIPTOR.services_by_name[service.name].methods}
            for method in service.methods:
                assert now[method.name].input_type.full_name == method.input_type.full_name
                assert now[method.name].output_type.full_name == method.output_type.full_name


@pytest.mark.parametrize("path", WRITTEN, ids=[path.stem for path in WRITTEN])
def test_a_message_that_the_last_release_wrote_is_read_as_it_was_meant(path: Path) -> None:
    kept = json.loads(path.read_text())
    read = as_json(decode(path.stem, base64.b64decode(kept["message"])))

    assert {name: read.get(name) for name in kept["means"]} == kept["means"]
