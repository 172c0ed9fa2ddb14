"""Register functions that run when an event occurs; see help(register)."""

from btrdbextras.eventproc.eventproc import (
    Handler,
    _uploads,
    deregister,
    hooks,
    list_handlers,
    register,
    upload_file,
)
from btrdbextras.eventproc.sample import sample_event
from btrdbextras.eventproc.trying import Trial, Upload, try_handler

__all__ = [
    "Handler",
    "Trial",
    "Upload",
    "_uploads",
    "deregister",
    "hooks",
    "list_handlers",
    "register",
    "sample_event",
    "try_handler",
    "upload_file",
]
