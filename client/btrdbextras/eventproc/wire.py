"""The messages of eventprocapi, described when imported, in a pool of their own: no generated code to go out of date.

Fields below 100 are those of clients in the field; those from 100 up are newer, and older servers pass over them.
"""

from typing import Any, Dict, List, Tuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "eventprocapi"
SERVICE = "EventProcessingService"

# message -> fields: (name, number, type); a type in [] is repeated, a capital letter begins a message
_MESSAGES: Dict[str, List[Tuple[str, int, str]]] = {
    "Hook": [("name", 1, "string")],
    "Handler": [
        ("id", 1, "int32"), ("hook", 2, "string"), ("name", 3, "string"), ("version", 4, "int32"),
        ("callable", 5, "bytes"), ("tag", 6, "[string]"), ("notify_on_success", 7, "string"),
        ("notify_on_failure", 8, "string"), ("created_by", 9, "string"), ("created_at", 10, "int64"),
        ("updated_by", 11, "string"), ("updated_at", 12, "int64"), ("runtime", 100, "string"),
    ],
    "Package": [("name", 1, "string"), ("version", 2, "string")],
    "Registration": [
        ("name", 1, "string"), ("hook", 2, "string"), ("tags", 3, "[string]"), ("blob", 4, "bytes"),
        ("notify_on_success", 5, "string"), ("notify_on_failure", 6, "string"), ("dependencies", 7, "string"),
        ("user", 8, "string"), ("api_key", 9, "string"), ("python_version", 100, "string"),
        ("dill_version", 101, "string"), ("packages", 102, "[Package]"), ("source", 103, "string"),
        ("first_line", 104, "int32"), ("file_name", 105, "string"),
    ],
    "ListHooksRequest": [],
    "ListHooksResponse": [("hooks", 1, "[Hook]")],
    "ListHandlersRequest": [("hook", 1, "string")],
    "ListHandlersResponse": [("handlers", 1, "[Handler]")],
    "RegisterRequest": [("registration", 1, "Registration")],
    "RegisterResponse": [("handler", 1, "Handler"), ("notes", 100, "[string]")],
    "DeregisterRequest": [("id", 1, "int32")],
    "DeregisterResponse": [("id", 1, "int32")],
}  # fmt: skip


def _describe() -> Any:
    """The file descriptor of the table above, as protoc would make it."""
    file = descriptor_pb2.FileDescriptorProto()
    file.name, file.package, file.syntax = "eventprocapi.proto", PACKAGE, "proto3"
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add()
        message.name = name
        for field_name, number, kind in fields:
            field = message.field.add()
            field.name, field.number = field_name, number
            field.label = kinds.LABEL_REPEATED if kind.startswith("[") else kinds.LABEL_OPTIONAL
            kind = kind.strip("[]")
            if kind[0].isupper():
                field.type, field.type_name = kinds.TYPE_MESSAGE, ".%s.%s" % (PACKAGE, kind)
            else:
                field.type = getattr(kinds, "TYPE_" + kind.upper())
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_describe().SerializeToString())


def message(name: str) -> Any:
    """The class of a message of the package, for instance message('Hook')."""
    descriptor = _pool.FindMessageTypeByName("%s.%s" % (PACKAGE, name))
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    factory: Any = message_factory
    return factory.MessageFactory(_pool).GetPrototype(descriptor)  # protobuf before 4.22


class Stub:
    """The calls of the service on a gRPC channel: ListHooks, ListHandlers, Register, Deregister, all unary."""

    def __init__(self, channel: Any) -> None:
        for method in ("ListHooks", "ListHandlers", "Register", "Deregister"):
            call = channel.unary_unary(
                "/%s.%s/%s" % (PACKAGE, SERVICE, method),
                request_serializer=message(method + "Request").SerializeToString,
                response_deserializer=message(method + "Response").FromString,
            )
            setattr(self, method, call)
