"""Runs a function at the desk as the platform would, before it is registered."""

import contextlib
import io
import json
import os
import site
import subprocess
import sys
import tempfile
import time
import types
import warnings
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from btrdbextras.conn import Connection
from btrdbextras.errors import CannotPickle, EventProcError
from btrdbextras.eventproc import archive, pickling, wire
from btrdbextras.eventproc.by_value import ByValue
from btrdbextras.eventproc.call import call
from btrdbextras.eventproc.names import names_in
from btrdbextras.eventproc.sample import sample_event
from btrdbextras.eventproc.table import as_html, as_text

__all__ = ["Trial", "Upload", "try_handler"]

DOCUMENTED = ("btrdb", "DataSets", "File", "RequestID", "SubmittedAt")
NAMED_ONLY = ("Tags", "Recordings")
OLDEST, NEWEST = (3, 6), (3, 13)
"""The Pythons that there are runtimes for."""
KEPT_BYTES = 16 * 1024 * 1024
LOG_BYTES = 1024 * 1024
_CORE = ("btrdb", "btrdbextras", "dill", "matplotlib", "numpy", "pandas", "scipy")
_BEGIN = """
import sys
ours = %r
if ours not in sys.path:  # this very package, after the standard library: what else lies beside it may have names of that
    sys.path.insert([path.endswith("-packages") for path in sys.path + ["-packages"]].index(True), ours)
from btrdbextras.eventproc.desk import main
main(*sys.argv[1:])
"""
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Upload(NamedTuple):
    """A file that the function handed to upload_file. size: bytes; content: None above 16 MiB and for what is no file."""

    name: str
    size: int
    content: Optional[bytes]


class Trial(object):
    """How a function did at the desk.

    ok: whether it succeeded. text: what the email would say. error, traceback: what was raised, '' for nothing.
    log: what it printed. uploads: list of Upload. warnings: what will or may differ in the platform. seconds: how long it took.
    """

    def __init__(self, name: str, answer: Dict[str, Any], log: str, warned: List[str], seconds: float) -> None:
        error = answer["error"] or {"type": "", "message": "", "traceback": ""}
        self.name = name
        self.ok = answer["outcome"] == "succeeded"
        self.text = str(answer["text"])
        self.error = ("%s: %s" % (error["type"], error["message"])).rstrip(": ") if answer["error"] else ""
        self.traceback = str(error["traceback"])
        self.log = log
        self.uploads: List[Upload] = answer["uploads"]
        self.warnings = warned
        self.seconds = seconds

    def _parts(self) -> List[Tuple[str, str]]:
        uploads = "\n".join("%s (%d bytes)" % (one.name, one.size) for one in self.uploads)
        return [
            ("Returned", self.text),
            ("Raised", self.traceback.rstrip() or self.error),
            ("Log", self.log.rstrip()),
            ("Uploads", uploads),
            ("Will differ in the platform", "\n".join(self.warnings)),
        ]

    def _head(self) -> str:
        return "%s %s in %.1f s" % (self.name, "succeeded" if self.ok else "FAILED", self.seconds)

    def __repr__(self) -> str:
        return as_text(self._head(), self._parts())

    def _repr_html_(self) -> str:
        return as_html(self._head(), self._parts())


def try_handler(
    function: Any,
    event_or_archive: Any = None,
    btrdb: Any = None,
    hook: str = "ctingress.on_complete",
    timeout: float = 900.0,
) -> Trial:
    """Runs a function here as the platform would run it, and tells what will differ there. Nothing is registered or sent.

    The function is pickled as register() does and loaded in a fresh process of this Python, in an empty folder: what it uses
    and what does not travel with it is missing here already. It is called with what its signature names, with `ep` at hand.

    Parameters
    ----------
    function: callable
    event_or_archive: dict, str or None
        The event: a dict as sample_event() gives it, the path of a .json file of one, or that of an archive (.zip) of COMTRADE
        files in their plain form, whose event is made here, without tags. Default: sample_event(hook).
    btrdb: Connection or btrdb.BTrDB, optional
        Where the function reads: Connection() for your platform's BTrDB, under your key; what btrdb.connect() gave, whose address
        is dialled anew under the key of BTRDB_API_KEY; or an object of your own with the methods that the function calls, which
        is pickled. Default: for the sample event and an archive a stand-in that serves their streams, for any other event the
        platform of BTRDB_ENDPOINTS and BTRDB_API_KEY.
    timeout: float
        Seconds until it is ended.

    Returns
    -------
    Trial
        With ok, text, error, traceback, log, uploads, warnings, seconds. An exception of the function is in it, not raised.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be right, and for a function that cannot be pickled, naming what in it cannot.

    Example
    -------
    >>> try_handler(count)
    count succeeded in 0.4 s
    Returned:
        3 data sets
    """
    path = _archive(event_or_archive)
    event, notes = archive.read(path)[::2] if path else (_event(event_or_archive, hook), [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pickled = pickling.pickle(function)
    # an old dill's own warnings of a new Python are nothing that the user can act on
    warned = [str(one.message) for one in caught if not issubclass(one.category, DeprecationWarning)]
    stand_in = "archive" if path else "sample" if event_or_archive is None else ""
    kind, environment, held = _where(btrdb, stand_in)
    warned += _differences(function, pickled) + _another_python(environment) + notes
    job = {
        "event": event, "documented": list(DOCUMENTED), "btrdb": kind, "source": pickled.source, "first_line": pickled.first_line,
        "archive": path,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="try-handler-") as folder:
        began = time.time()
        answer, log = _in_child(folder, job, _together(function, held), environment, timeout)
        seconds = time.time() - began
        answer["uploads"] = [_kept(one) for one in answer["uploads"]]
    return Trial(getattr(function, "__name__", type(function).__name__), answer, log, warned, seconds)


def _archive(given: Any) -> str:
    """The whole path of an archive; '' for what is none."""
    path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else ""
    return os.path.abspath(path) if str(path).lower().endswith(archive.ENDINGS) else ""


def _event(given: Any, hook: str) -> Dict[str, Any]:
    if given is None:
        return sample_event(hook)
    if isinstance(given, (str, os.PathLike)):
        given = _from_file(os.fspath(given))
    if not isinstance(given, dict):
        raise TypeError("the event should be a dict as sample_event() gives it, or the path of a .json file of one")
    lacking = [name for name in DOCUMENTED[1:] if name not in given]
    if lacking:
        raise ValueError("the event lacks %s; sample_event() shows what one holds" % ", ".join(lacking))
    event = {name: [] for name in NAMED_ONLY}  # type: Dict[str, Any]
    event.update((name, value) for name, value in given.items() if name in DOCUMENTED[1:] + NAMED_ONLY)
    try:
        json.dumps(event)
    except (TypeError, ValueError) as error:
        raise ValueError("the event should hold what JSON can: dicts, lists, text, numbers (%s)" % error) from error
    return event


def _from_file(path: str) -> Any:
    if not path.lower().endswith(".json"):
        raise ValueError(
            "%r is neither an archive (%s) nor a .json file of an event. Other forms are read by the platform alone: ingest it "
            "(`eventproc upload`), or try the function on sample_event()" % (path, ", ".join(archive.ENDINGS))
        )
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError("%r is no JSON: %s" % (path, error)) from error


def _where(btrdb: Any, stand_in: str) -> Tuple[str, Dict[str, str], Any]:
    """How the child comes by its BTrDB: its name for that, environment, what is pickled for it."""
    if btrdb is None and stand_in:
        return stand_in, {}, None
    if btrdb is None:
        try:
            btrdb = Connection()
        except ValueError as error:
            raise ValueError(
                "btrdb: which BTrDB should the event be read from? Pass btrdb=Connection(...): %s" % error
            ) from error
    if type(btrdb).__module__.split(".")[0] == "btrdb":
        btrdb = _opened_as(btrdb)
    if isinstance(btrdb, Connection):
        return "connect", {"BTRDB_ENDPOINTS": btrdb.endpoint, "BTRDB_API_KEY": btrdb.apikey}, None
    return "pickled", {}, btrdb


def _opened_as(database: Any) -> Connection:
    """The address and the key of an open btrdb.BTrDB, which stays in its process. The key is told where TLS is not spoken alone;
    else it is the environment's, if that is of the same address: no other server is to see it."""
    info = getattr(getattr(getattr(database, "ep", None), "stub", None), "Info", None)
    if info is None:
        raise TypeError("btrdb should be a Connection(...), or what btrdb.connect() gave; it is a %s" % type(database))
    try:
        at = str(info._channel.target().decode()).rpartition("/")[2]
    except AttributeError:
        at = ""
    key = getattr(getattr(info, "_interceptor", None), "apikey", None)
    try:
        found = Connection(at or None, key)
        known = found if key else Connection()
    except ValueError as error:
        raise ValueError(
            "btrdb: an open connection does not tell its key (%s); pass btrdbextras.Connection(endpoint, apikey)"
            % error
        ) from error
    if found.endpoint != known.endpoint:
        raise ValueError(
            "btrdb: the connection is open to %s, whose key it does not tell, and BTRDB_API_KEY is for %s; "
            "pass btrdbextras.Connection(%r, apikey)" % (found.endpoint, known.endpoint, found.endpoint)
        )
    return found


def _together(function: Any, held: Any) -> bytes:
    """The function and the stand-in that its caller gave, in one pickle."""
    file = io.BytesIO()
    try:
        ByValue(file).dump((function, held))
    except Exception as error:
        raise CannotPickle("btrdb: %r cannot be pickled: %s" % (type(held).__name__, error)) from error
    return file.getvalue()


def _in_child(
    folder: str, job: Dict[str, Any], blob: bytes, environment: Dict[str, str], timeout: float
) -> Tuple[Dict[str, Any], str]:
    files = [os.path.join(folder, name) for name in ("job", "blob", "answer", "log")]
    work = os.path.join(folder, "work")
    os.mkdir(work)
    with open(files[0], "w", encoding="utf-8") as file:
        json.dump(job, file)
    with open(files[1], "wb") as binary:
        binary.write(blob)
    command = [sys.executable, "-c", _BEGIN % _PACKAGES, *files[:3]]
    ended = ""
    with open(files[3], "wb") as log:
        child = subprocess.Popen(
            command, cwd=work, env=_environment(work, environment), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )  # fmt: skip
        try:
            status = child.wait(timeout)
            ended = "the process of the function ended with status %d, without an answer" % status
        except subprocess.TimeoutExpired:
            ended = "it was ended after %g s" % timeout
        finally:
            child.kill()
            child.wait()
    with open(files[3], "rb") as log:
        said = log.read(LOG_BYTES).decode("utf-8", "replace")
    try:
        with open(files[2], encoding="utf-8") as file:
            return json.load(file), said
    except (OSError, ValueError):
        error = {"type": "Ended", "message": ended, "traceback": ""}
        return {"text": "", "outcome": "failed", "error": error, "uploads": []}, said


def _environment(work: str, more: Dict[str, str]) -> Dict[str, str]:
    """As in the sandbox; the notebook's own variables are not there."""
    kept = ("BTRDB_CA_BUNDLE", "PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    if "BTRDB_CA_BUNDLE" in environment:
        environment["BTRDB_CA_BUNDLE"] = os.path.abspath(environment["BTRDB_CA_BUNDLE"])
    environment.update(
        EXECUTOR_CONTEXT="true", DOWNLOADS_ENDPOINT="not-uploaded-at-the-desk", HOME=work, TMPDIR=work, TZ="UTC",
        LANG="C.UTF-8", MPLBACKEND="Agg", PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore",
        PYTHONUSERBASE=site.getuserbase(),  # packages that were installed with --user lie in the HOME that was
    )  # fmt: skip
    environment.update(more)
    return environment


def _kept(one: Dict[str, Any]) -> Upload:
    try:
        size = os.path.getsize(one["path"])
        if size > KEPT_BYTES:
            return Upload(one["name"], size, None)
        with open(one["path"], "rb") as file:
            return Upload(one["name"], size, file.read())
    except OSError:
        return Upload(one["name"], 0, None)


def _differences(function: Any, pickled: pickling.Pickled) -> List[str]:
    found = []
    plain = pickling.plain(function)
    names = names_in(plain.__code__).globals if plain is not None else set()
    data = sorted(name for name in names if plain is not None and _is_data(plain.__globals__.get(name)))
    if data:
        found.append("goes along as it is now, later changes are not seen: %s" % ", ".join(data))
    others = sorted(set(pickled.packages) - set(_CORE))
    if others:
        found.append(
            "not in every runtime: %s. Whether the platform's for Python %d.%d has it is not known here; register() loads the "
            "function there and says so" % (", ".join(others), sys.version_info[0], sys.version_info[1])
        )
    if "input" in names:
        found.append("it calls input(), and nobody is there to answer")
    return found


def _another_python(environment: Dict[str, str]) -> List[str]:
    """Whether this Python is none of the platform's, as far as it can be asked."""
    here, served = "%d.%d" % sys.version_info[:2], []  # type: Tuple[str, List[str]]
    if environment:
        with contextlib.suppress(
            EventProcError
        ):  # no event processing there: the function may read from it all the same
            conn = Connection(environment["BTRDB_ENDPOINTS"], environment["BTRDB_API_KEY"])
            served = list(call(conn, "ListHooks", wire.message("ListHooksRequest")()).runtimes)
    if served and "py" + here not in served:
        told = "the platform has %s" % ", ".join(served)
    elif not served and not OLDEST <= sys.version_info[:2] <= NEWEST:
        told = "platforms have some of %d.%d to %d.%d" % (OLDEST + NEWEST)
    else:
        return []
    return ["another Python: this is %s, and %s; register() takes functions from those alone" % (here, told)]


def _is_data(value: Any) -> bool:
    return value is not None and not isinstance(value, types.ModuleType) and not callable(value)
