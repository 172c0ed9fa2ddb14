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
from btrdbextras.eventproc.look import follow, run, runs, source, versions
from btrdbextras.eventproc.manage import pause, rekey, replay, resume, rollback
from btrdbextras.eventproc.rows import Attempt, Replayed, Run, RunFile, RunReport, Source, Version
from btrdbextras.eventproc.sample import sample_event
from btrdbextras.eventproc.trying import Trial, Upload, try_handler

__all__ = [
    "Attempt",
    "Handler",
    "Replayed",
    "Run",
    "RunFile",
    "RunReport",
    "Source",
    "Trial",
    "Upload",
    "Version",
    "_uploads",
    "deregister",
    "follow",
    "hooks",
    "list_handlers",
    "pause",
    "register",
    "rekey",
    "replay",
    "resume",
    "rollback",
    "run",
    "runs",
    "sample_event",
    "source",
    "try_handler",
    "upload_file",
    "versions",
]
