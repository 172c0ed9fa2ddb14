"""The messages of the platform's gRPC service, described at run time.

Generated code would tie this package to one protobuf; descriptors in a pool of our own work with every one, and do not clash
with another package that brings the same names.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "eventprocapi"
SERVICE = "/eventprocapi.EventProcessingService/"

_HANDLER = (
    "int32 id 1, string hook 2, string name 3, int32 version 4, bytes callable 5, repeated string tag 6, "
    "string notify_on_success 7, string notify_on_failure 8, string created_by 9, int64 created_at 10, string updated_by 11, "
    "int64 updated_at 12, string runtime 100"
)
_REGISTRATION = (
    "string name 1, string hook 2, repeated string tags 3, bytes blob 4, string notify_on_success 5, string notify_on_failure 6, "
    "string dependencies 7, string user 8, string api_key 9, string python_version 100, string dill_version 101, "
    "repeated Package packages 102, string source 103, int32 first_line 104, string file_name 105, "
    "repeated string requirements 106"
)
_MESSAGES = {
    "Hook": "string name 1",
    "Handler": _HANDLER,
    "Package": "string name 1, string version 2",
    "Registration": _REGISTRATION,
    "ListHooksRequest": "",
    "ListHooksResponse": "repeated Hook hooks 1",
    "ListHandlersRequest": "string hook 1",
    "ListHandlersResponse": "repeated Handler handlers 1",
    "RegisterRequest": "Registration registration 1",
    "RegisterResponse": "Handler handler 1, repeated string notes 100, string check 101",
    "DeregisterRequest": "int32 id 1",
    "DeregisterResponse": "int32 id 1",
}


def _build() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="btrdbextras/eventprocapi.proto", package=PACKAGE, syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "int32": kinds.TYPE_INT32,
        "int64": kinds.TYPE_INT64,
        "string": kinds.TYPE_STRING,
        "bytes": kinds.TYPE_BYTES,
    }
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in filter(None, fields.split(", ")):
            words = line.split()
            label = kinds.LABEL_REPEATED if words[0] == "repeated" else kinds.LABEL_OPTIONAL
            kind, field, number = words[-3:]
            added = message.field.add(name=field, number=int(number), label=label)
            if kind in scalars:
                added.type = scalars[kind]
            else:
                added.type, added.type_name = kinds.TYPE_MESSAGE, ".%s.%s" % (PACKAGE, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _build()


def message(name: str) -> Any:
    """The class of a message, for instance message('Registration')."""
    descriptor = _POOL.FindMessageTypeByName("%s.%s" % (PACKAGE, name))
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    factory: Any = message_factory.MessageFactory(_POOL)  # protobuf before 4.22
    return factory.GetPrototype(descriptor)
