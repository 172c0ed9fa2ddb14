"""The child in which try_handler runs a function: main(), in a Python of its own.

Does what the platform's sandbox does with a pickle: loads it where its notebook is not, calls it with what its signature
names, makes a text of what it returns. JOB and ANSWER are JSON files.
"""

import builtins
import importlib
import inspect
import json
import linecache
import os
import sys
import traceback
from typing import Any, Dict, List, Set

TEXT_LIMIT = 1 << 20


class Refused(Exception):
    """The handler cannot be called so."""


def main(job_file: str, blob_file: str, answer_file: str) -> None:
    """Runs the job; whatever happens within is in the answer."""
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    try:
        answer = _run(job, blob_file)
    except BaseException as error:  # noqa: BLE001 - the function may raise anything, SystemExit too
        answer = {"text": "", "outcome": "refused" if isinstance(error, Refused) else "failed", "error": _told(error)}
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    answer["uploads"] = _uploads()
    with open(answer_file, "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(answer, file)


def _run(job: Dict[str, Any], blob_file: str) -> Dict[str, Any]:
    import dill

    try:
        database = _database(job)
    except Exception as error:
        raise Refused("BTrDB cannot be reached: %s" % error) from error
    try:
        with open(blob_file, "rb") as file:
            handler, given_database = dill.load(file)
    except BaseException as error:
        raise Refused("the function cannot be loaded: %s: %s" % (type(error).__name__, error)) from error
    lent = importlib.import_module("btrdbextras.eventproc")
    builtins.ep = lent  # type: ignore[attr-defined]
    _show_source(handler, job["source"], job["first_line"])
    given = dict(job["event"], btrdb=given_database if database is None else database)
    value = handler(**arguments(handler, given, job["documented"]))
    text = "" if value is None else str(value)
    return {"text": text[:TEXT_LIMIT], "outcome": "succeeded", "error": None}


def _database(job: Dict[str, Any]) -> Any:
    """A connected btrdb.BTrDB, the stand-in for the sample or an archive, or None: it is in the pickle."""
    if job["btrdb"] == "sample":
        from btrdbextras.eventproc.stand_in import sample_btrdb

        return sample_btrdb()
    if job["btrdb"] == "archive":
        from btrdbextras.eventproc.archive import read
        from btrdbextras.eventproc.stand_in import sample_btrdb

        return sample_btrdb(read(job["archive"])[1])
    if job["btrdb"] == "connect":
        import btrdb

        return btrdb.connect(os.environ["BTRDB_ENDPOINTS"], apikey=os.environ["BTRDB_API_KEY"])
    return None


def arguments(handler: Any, given: Dict[str, Any], documented: List[str]) -> Dict[str, Any]:
    """What the platform calls a handler with: what its signature names; **kwargs alone gets the documented ones.

    A decorated function gets what both it and what it wraps accept. Raises Refused for one that cannot be called so.
    """
    chain: List[Any] = []
    one = handler
    while one is not None and len(chain) < 50 and not any(one is known for known in chain):
        chain.append(one)
        one = getattr(one, "__wrapped__", None)
    chosen = set(given)
    for function in chain:
        try:
            parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
        except (TypeError, ValueError):
            chosen &= set(documented)  # built in: it does not say
            continue
        if function is handler:
            _check(parameters, given)
        rest = documented if function is chain[-1] else list(given)
        chosen &= _accepted(parameters, rest)
    return {name: value for name, value in given.items() if name in chosen}


def _check(parameters: List[Any], given: Dict[str, Any]) -> None:
    for one in parameters:
        if one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if one.kind == one.POSITIONAL_ONLY:
            raise Refused("the handler takes %r by position only; arguments come by name" % one.name)
        if one.name not in given:
            raise Refused("the handler asks for an argument %r; there are %s" % (one.name, ", ".join(sorted(given))))


def _accepted(parameters: List[Any], rest: List[str]) -> Set[str]:
    accepted = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    if any(one.kind == one.VAR_KEYWORD for one in parameters):
        accepted |= set(rest)
    return accepted


def _show_source(handler: Any, source: str, first_line: int) -> None:
    """Lets a traceback show lines of a notebook's cell, which is no file."""
    for _ in range(50):
        if getattr(handler, "__wrapped__", None) is None:
            break
        handler = handler.__wrapped__
    code = getattr(handler, "__code__", None)
    if source and code is not None:
        lines = ["\n"] * (first_line - 1) + [line + "\n" for line in source.splitlines()]
        linecache.cache[code.co_filename] = (len(source), None, lines, code.co_filename)


def _told(error: BaseException) -> Dict[str, str]:
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename == __file__:
        step = step.tb_next
    if isinstance(error, Refused):
        return {"type": "Refused", "message": str(error), "traceback": ""}
    try:
        shown = "".join(traceback.format_exception(type(error), error, step))
        return {"type": type(error).__name__, "message": str(error), "traceback": shown}
    except BaseException as second:  # noqa: BLE001 - formatting calls the function's own __str__
        return {
            "type": type(error).__name__,
            "message": "(cannot be shown: %s)" % type(second).__name__,
            "traceback": "",
        }


def _uploads() -> List[Dict[str, Any]]:
    module = sys.modules.get("btrdbextras.eventproc")
    queued = dict(getattr(module, "_uploads", {}))
    return [{"name": name, "path": os.path.abspath(path)} for path, name in queued.values()]
