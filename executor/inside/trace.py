"""What a handler raised, as texts: type, message and a traceback that shows the user's own lines."""

import linecache
import os
import traceback
from typing import Any, Dict, List, Optional

_HERE = os.path.dirname(os.path.abspath(__file__))
MESSAGE, TRACEBACK = 16 * 1024, 64 * 1024


def show_source(handler: Any, source: Optional[str], first_line: int) -> None:
    """Lets tracebacks show the source: the file it came from (a notebook's cell) is not here."""
    for _ in range(50):  # it may wrap itself
        if getattr(handler, "__wrapped__", None) is None:
            break
        handler = handler.__wrapped__
    code = getattr(handler, "__code__", None)
    if not source or code is None:
        return
    first = first_line or code.co_firstlineno
    lines = ["\n"] * (first - 1) + [line + "\n" for line in source.splitlines()]
    # no modification time: linecache then never looks for the file
    linecache.cache[code.co_filename] = (len(source), None, lines, code.co_filename)


def error_of(error: BaseException) -> Dict[str, str]:
    """type, message, traceback; whatever the exception's own methods do."""
    return {"type": _type_of(error), "message": _message_of(error), "traceback": _traceback_of(error)}


def _type_of(error: BaseException) -> str:
    # by type's own descriptors: a metaclass may answer anything, or never
    kind = type(error)
    name: str = type.__dict__["__qualname__"].__get__(kind)
    try:
        module = type.__dict__["__module__"].__get__(kind)
    except AttributeError:
        module = None
    if not isinstance(module, str) or module in ("builtins", "__main__", __name__.rpartition(".")[0] + ".child"):
        return str.__getitem__(name, slice(0, 200))
    return (str.__str__(module) + "." + name)[:200]


def _message_of(error: BaseException) -> str:
    try:
        return str.__getitem__(str(error), slice(0, MESSAGE))
    except BaseException as second:  # noqa: BLE001 - its __str__ is the user's
        return "(the exception's message cannot be shown: its __str__ raised %s)" % type(second).__name__


def _traceback_of(error: BaseException) -> str:
    try:
        own = error.__traceback__
        while own is not None and _ours(own):
            own = own.tb_next
        told = traceback.TracebackException(type(error), error, own)
        while told.stack and os.path.dirname(told.stack[-1].filename) == _HERE:
            told.stack.pop()  # the warning before the time limit is raised in here
        lines = list(told.format())
    except BaseException as second:  # noqa: BLE001 - formatting calls the user's __repr__ and __str__
        return "(the traceback cannot be shown: %s)" % type(second).__name__
    return _cut(lines)


def _ours(entry: Any) -> bool:
    return bool(os.path.dirname(entry.tb_frame.f_code.co_filename) == _HERE)


def _cut(lines: List[str]) -> str:
    text = "".join(lines)
    if len(text) <= TRACEBACK:
        return text
    half = TRACEBACK // 2
    return text[:half] + "\n  ... %d characters left out ...\n" % (len(text) - TRACEBACK) + text[-half:]
