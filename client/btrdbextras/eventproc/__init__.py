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

__all__ = ["Handler", "_uploads", "deregister", "hooks", "list_handlers", "register", "upload_file"]
