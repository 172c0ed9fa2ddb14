"""The handler's connection to BTrDB, made before its pickle is loaded."""

import importlib
import warnings
from typing import Any, Optional


class Away(Exception):
    """BTrDB cannot be reached."""


class KeyRefused(Exception):
    """BTrDB refuses the run's API key."""


def btrdb(endpoint: Optional[str], key: str) -> Any:
    """A connected btrdb.BTrDB; None without an endpoint. Raises Away, KeyRefused."""
    if endpoint is None:
        return None
    module = importlib.import_module("btrdb")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.connect(endpoint, apikey=key)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the versions of btrdb raise different things here
        code = _grpc_code(error)
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            raise KeyRefused(str(error))
        raise Away(str(error))


def _grpc_code(error: Optional[BaseException]) -> str:
    """The gRPC status behind an exception: btrdb wraps it, so it is looked for in the chain."""
    while error is not None:
        code = getattr(error, "code", None)
        if callable(code):
            return str(getattr(code(), "name", ""))
        error = error.__cause__ or error.__context__
    return ""
