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
    "int64 updated_at 12, string runtime 100, bool paused 101, string pause_reason 102, Options options 103, "
    "repeated string requirements 104"
)
_REGISTRATION = (
    "string name 1, string hook 2, repeated string tags 3, bytes blob 4, string notify_on_success 5, string notify_on_failure 6, "
    "string dependencies 7, string user 8, string api_key 9, string python_version 100, string dill_version 101, "
    "repeated Package packages 102, string source 103, int32 first_line 104, string file_name 105, "
    "repeated string requirements 106, Options options 110"
)
_OPTIONS = (
    "double timeout_s 1, int64 memory_bytes 2, int32 max_concurrency 3, int32 retries 4, double retry_delay_s 5, string notify 6, "
    "string description 7"
)
_RUN_LINE = (
    "string id 1, int32 handler_id 2, string handler 3, int32 version 4, string hook 5, string request_id 6, string subject 7, "
    "string owner 8, string state 9, int64 queued_at_ms 10, int64 started_at_ns 11, int64 ended_at_ns 12, string error 13, "
    "int32 attempts 14"
)
_RUN = (
    "RunLine run 1, string text 2, string error_type 3, string error_message 4, string error_traceback 5, string log 6, "
    "bool log_truncated 7, double cpu_s 8, int64 peak_memory_bytes 9, repeated RunFile files 10, repeated RunAttempt attempts 11, "
    "string replay_of 12, string runtime 13, repeated string tags 14"
)
_ATTEMPT = "int32 number 1, string executor 2, int64 claimed_at_ms 3, int64 ended_at_ms 4, string reason 5"
_VERSION = (
    "int32 handler_id 1, int32 version 2, bool present 3, int64 created_at_ms 4, string created_by 5, string runtime 6, "
    "string python_version 7, repeated string tags 8, string notify_on_success 9, string notify_on_failure 10, Options options 11, "
    "string digest 12, repeated string requirements 13, bool has_source 14"
)
_LIST_RUNS = "HandlerRef handler 1, string hook 2, string state 3, int64 since_ms 4, int32 limit 5, string after 6, string owner 7"
_REPLAY = "HandlerRef handler 1, int64 since_ms 2, int64 until_ms 3, bool dry_run 4, string replay_id 5, string after 6, string only 7"
_MESSAGES = {
    "Hook": "string name 1",
    "Handler": _HANDLER,
    "Package": "string name 1, string version 2",
    "Registration": _REGISTRATION,
    "ListHooksRequest": "",
    "ListHooksResponse": "repeated Hook hooks 1, repeated string runtimes 100",
    "ListHandlersRequest": "string hook 1",
    "ListHandlersResponse": "repeated Handler handlers 1",
    "RegisterRequest": "Registration registration 1",
    "RegisterResponse": "Handler handler 1, repeated string notes 100, string check 101",
    "DeregisterRequest": "int32 id 1",
    "DeregisterResponse": "int32 id 1",
    "Options": _OPTIONS,
    "HandlerRef": "int32 id 1, string name 2, string hook 3",
    "ListRunsRequest": _LIST_RUNS,
    "ListRunsResponse": "repeated RunLine runs 1, string next_page 2",
    "RunLine": _RUN_LINE,
    "GetRunRequest": "string id 1",
    "GetRunResponse": _RUN,
    "RunFile": "string name 1, int64 size 2, string link 3",
    "RunAttempt": _ATTEMPT,
    "ReadLogRequest": "string id 1, int32 attempt 2, int64 at 3",
    "ReadLogResponse": "string text 1, int32 attempt 2, int64 at 3, string state 4, bool ended 5",
    "ListVersionsRequest": "HandlerRef handler 1",
    "ListVersionsResponse": "repeated HandlerVersion versions 1",
    "HandlerVersion": _VERSION,
    "GetSourceRequest": "HandlerRef handler 1, int32 version 2, bool with_blob 3",
    "GetSourceResponse": "string source 1, string file_name 2, int32 first_line 3, int32 version 4, bytes blob 5",
    "RollbackRequest": "HandlerRef handler 1, int32 version 2",
    "RollbackResponse": "Handler handler 1",
    "PauseRequest": "HandlerRef handler 1",
    "PauseResponse": "Handler handler 1",
    "ResumeRequest": "HandlerRef handler 1",
    "ResumeResponse": "Handler handler 1",
    "ReplayRequest": _REPLAY,
    "ReplayResponse": "repeated Replayed runs 1, int32 events 2, string next_page 3",
    "Replayed": "string run_id 1, string request_id 2, string subject 3, string replay_of 4, bool was_there 5",
    "RekeyRequest": "",
    "RekeyResponse": "int32 handlers 1, repeated Handler resumed 2",
}


def _build() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="btrdbextras/eventprocapi.proto", package=PACKAGE, syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "int32": kinds.TYPE_INT32,
        "int64": kinds.TYPE_INT64,
        "string": kinds.TYPE_STRING,
        "bytes": kinds.TYPE_BYTES,
        "bool": kinds.TYPE_BOOL,
        "double": kinds.TYPE_DOUBLE,
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
