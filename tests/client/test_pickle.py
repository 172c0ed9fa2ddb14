"""Pickles by value: each is loaded by a bare Python that has dill alone, away from this package and the user's modules."""

from __future__ import annotations

import functools
import importlib
import io
import socket
import subprocess
import sys
import xml.dom.minidom
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import dill
import pytest

from btrdbextras import Connection, errors
from btrdbextras.eventproc import pickling

LIMIT = 3
BIG = "not to be taken along " * 1000
SOCKET = socket.socket()
SOCKET.close()
CONN = Connection("host:4411", "SECRET")
calls = 0


def doubled(value: int) -> int:
    return value * 2 + LIMIT


def counted() -> None:
    global calls
    calls += 1


def spoken(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> str:
        return f"said {function(*args, **kwargs)}"

    return wrapper


class Point(NamedTuple):
    x: int
    y: int = 3


class Shape:
    known: ClassVar[set[str]] = set()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.known.add(f"{cls.__name__}{LIMIT}")


class Line(Shape):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    @property
    def next(self) -> Longer:
        return Longer(self.length)

    def __setstate__(self, state: dict[str, int]) -> None:
        self.length = doubled(state["length"])


class Longer(Line):
    def __init__(self, length: int) -> None:
        super().__init__(length + 1)


LINE = Line(1)


def helped(**kwargs: Any) -> int:
    return doubled(4)


def counts(**kwargs: Any) -> int:
    counted()
    counted()
    return calls


@spoken
def decorated(**kwargs: Any) -> int:
    return LIMIT


def uses_classes(**kwargs: Any) -> Any:
    return Line(3).next.length, LINE.length, LINE.next.next.length, Point(1).y, sorted(Shape.known)


def parses(**kwargs: Any) -> str:
    return xml.dom.minidom.parseString("<a/>").toxml()[-4:]


def lends_ep(**kwargs: Any) -> Any:
    return ep.upload_file  # type: ignore[name-defined]  # noqa: F821 - where handlers run, it is there


def uses_socket(**kwargs: Any) -> Any:
    return through_helper()


def through_helper() -> Any:
    return SOCKET.getsockname()


def knows_conn(**kwargs: Any) -> Any:
    return CONN.endpoint


def blob_of(function: Any) -> bytes:
    return pickling.pickle(function).blob


def test_helpers_and_constants_come_along(in_bare_python: Any) -> None:
    assert in_bare_python(blob_of(helped), "f()") == "11"


def test_what_is_not_referred_to_stays(in_bare_python: Any) -> None:
    blob = blob_of(helped)

    assert b"not to be taken along" not in blob
    assert len(blob) < 1500


def test_a_function_that_calls_itself_does_so_there(in_bare_python: Any) -> None:
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    assert in_bare_python(blob_of(factorial), "f(5)") == "120"


def test_a_closure_keeps_its_variables_and_shares_them(in_bare_python: Any) -> None:
    total = 5

    def add(value: int) -> None:
        nonlocal total
        total += value

    def handler(first: int = 1, *, second: int = 2) -> int:
        add(first + second)
        return total

    assert in_bare_python(blob_of(handler), "f(), f(second=10)") == "8 19"


def test_a_closure_variable_without_a_value_yet_has_none_there(in_bare_python: Any) -> None:
    def handler() -> Any:
        try:
            return unset
        except NameError as error:
            return type(error).__name__

    if BIG == "":
        unset = 1

    assert in_bare_python(blob_of(handler), "f()") == "NameError"


def test_functions_of_one_module_share_its_globals(in_bare_python: Any) -> None:
    assert in_bare_python(blob_of(counts), "f(), f()") == "2 4"


def test_a_decorated_function_keeps_its_decorator_and_its_signature(in_bare_python: Any) -> None:
    assert in_bare_python(blob_of(decorated), "f(), f.__name__, f.__wrapped__()") == "said 3 decorated 3"


def test_classes_and_instances_that_refer_to_each_other_come_along(in_bare_python: Any) -> None:
    assert in_bare_python(blob_of(uses_classes), "f()") == "(4, 5, 7, 3, ['Line3', 'Longer3'])"


def test_a_submodule_that_is_used_is_imported_there(in_bare_python: Any) -> None:
    assert in_bare_python(blob_of(parses), "f()") == "<a/>"


def test_partials_methods_and_callable_objects_are_handlers_too(in_bare_python: Any) -> None:
    class Handler:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, value: int = 1) -> int:
            return value * self.factor * LIMIT

        def method(self) -> int:
            return self.factor

    assert in_bare_python(blob_of(Handler(2)), "f()") == "6"
    assert in_bare_python(blob_of(Handler(7).method), "f()") == "7"
    assert in_bare_python(blob_of(functools.partial(Handler(2), value=5)), "f()") == "30"
    assert in_bare_python(blob_of(lambda: 5), "f()") == "5"


def test_the_name_ep_is_left_to_where_it_runs(in_bare_python: Any) -> None:
    import btrdbextras.eventproc

    lends_ep.__globals__["ep"] = btrdbextras.eventproc
    try:
        blob = blob_of(lends_ep)
    finally:
        del lends_ep.__globals__["ep"]

    assert in_bare_python(blob, "'ep' in f.__globals__") == "False"


def test_the_function_itself_is_left_as_it_was() -> None:
    before = (uses_classes.__module__, Line.__module__, dict(vars(uses_classes)))

    blob_of(uses_classes)

    assert (uses_classes.__module__, Line.__module__, dict(vars(uses_classes))) == before


def test_annotations_that_name_what_is_not_there_do_no_harm(in_bare_python: Any) -> None:
    def handler(value: int) -> int:
        return value

    handler.__annotations__["value"] = pytest.MonkeyPatch

    assert in_bare_python(blob_of(handler), "f(3)") == "3"


def test_a_connection_comes_without_its_key() -> None:
    assert b"SECRET" not in blob_of(knows_conn)


MODULE = """
import enum

import {name}_deeper as deeper

SECRET_TABLE = "not to be taken along"


class Phase(enum.Enum):
    A = 1
    B = 2
    FIRST = 1

    def __init__(self, value):
        self.angle = value * 120

    @property
    def label(self):
        return self.name.lower() + deeper.SUFFIX

    @classmethod
    def parse(cls, text):
        return cls[text]


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Kind(str, enum.Enum):
    FAULT = "fault"


def describe(**kwargs):
    both = Level.LOW | Level.HIGH
    return (
        Phase.parse("B").label, Phase(1) is Phase.FIRST is Phase.A, Phase.B.angle, len(Phase),
        int(both), Level.HIGH in both, Kind("fault") == "fault",
    )
"""
DEEPER = """
SUFFIX = "!"
UNUSED = "not to be taken along"


def suffix():
    return SUFFIX
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's, imported from a folder of theirs."""
    name = "grid_tools"
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    (tmp_path / f"{name}_deeper.py").write_text(DEEPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(name)
    for one in (name, f"{name}_deeper"):
        sys.modules.pop(one)


def test_a_function_of_an_imported_module_is_taken_by_value_with_its_enums(
    own_module: Any, in_bare_python: Any
) -> None:
    blob = blob_of(own_module.describe)

    assert in_bare_python(blob, "f()") == "('b!', True, 240, 2, 3, True, True)"
    assert b"not to be taken along" not in blob


def test_a_module_of_the_users_comes_along_with_the_names_that_are_used(own_module: Any, in_bare_python: Any) -> None:
    tools = own_module

    def handler() -> Any:
        return tools.describe()[0], tools.deeper.suffix()

    blob = blob_of(handler)

    assert in_bare_python(blob, "f()") == "('b!', '!')"
    assert b"not to be taken along" not in blob


def test_a_script_run_as_a_file_registers_its_functions(tmp_path: Path, in_bare_python: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom btrdbextras.eventproc import pickling\nFACTOR = 4\n"
        "def helper(x):\n    return x * FACTOR\n"
        "def handler():\n    return helper(2)\n"
        "sys.stdout.buffer.write(pickling.pickle(handler).blob)\n"
    )
    blob = subprocess.run([sys.executable, str(script)], capture_output=True, check=True, timeout=60).stdout

    assert in_bare_python(blob, "f()") == "8"


def test_a_notebook_cell_is_found_with_its_source() -> None:
    linecache = importlib.import_module("linecache")
    text = "def handler():\n    return 1\n"
    name = "<ipython-input-1>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), cell)

    pickled = pickling.pickle(cell["handler"])

    assert (pickled.source, pickled.first_line, pickled.file_name) == (text, 1, name)


def test_a_function_without_source_is_pickled_all_the_same(in_bare_python: Any) -> None:
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec("def handler():\n    return 1\n", cell)

    pickled = pickling.pickle(cell["handler"])

    assert (pickled.source, pickled.first_line) == ("", 0)
    assert in_bare_python(pickled.blob, "f()") == "1"


def test_the_global_that_cannot_be_pickled_is_named_with_the_way_to_it() -> None:
    with pytest.raises(errors.CannotPickle, match="global 'SOCKET' of function 'through_helper'") as caught:
        blob_of(uses_socket)

    assert "'uses_socket' cannot be registered" in str(caught.value)
    assert "reached from global 'through_helper' of function 'uses_socket'" in str(caught.value)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)


def test_the_enclosed_variable_that_cannot_be_pickled_is_named() -> None:
    running = (number for number in range(3))

    def handler() -> Any:
        return next(running)

    with pytest.raises(errors.CannotPickle, match="enclosed variable 'running'"):
        blob_of(handler)


def test_the_default_that_cannot_be_pickled_is_named() -> None:
    def handler(a: int, b: Any = SOCKET, *, c: Any = 1) -> Any:
        return b

    def other(*, c: Any = SOCKET) -> Any:
        return c

    with pytest.raises(errors.CannotPickle, match="default of argument 'b'"):
        blob_of(handler)
    with pytest.raises(errors.CannotPickle, match="default of argument 'c'"):
        blob_of(other)


def test_an_open_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:

        def handler() -> None:
            log.write("x")

        with pytest.raises(errors.CannotPickle, match=r"'log'.*open file"):
            blob_of(handler)

    buffer = io.StringIO("text")
    assert dill.loads(blob_of(lambda: buffer.getvalue()))() == "text"


@pytest.mark.parametrize("what", [3, None, int, Path])
def test_what_is_no_function_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="function"):
        blob_of(what)


def test_a_name_that_is_not_defined_yet_is_warned_of() -> None:
    def handler() -> Any:
        return defined_below()  # type: ignore[name-defined]  # noqa: F821

    with pytest.warns(UserWarning, match="'defined_below', not defined so far"):
        blob_of(handler)


def test_an_import_of_the_users_own_module_inside_is_warned_of(own_module: Any) -> None:
    def handler() -> Any:
        import grid_tools  # type: ignore[import-not-found]

        return grid_tools.describe()

    with pytest.warns(UserWarning, match="'grid_tools' inside"):
        blob_of(handler)
