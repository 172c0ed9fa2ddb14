"""A function -> a pickle that loads where neither its notebook nor its module is: by value, with what it refers to."""

from __future__ import annotations

import contextlib
import dis
import inspect
import os
import sys
import sysconfig
import threading
import types
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import dill

from btrdbextras.errors import CannotPickle

SOURCE_LENGTH = 200000
_HERE = __name__.split(".")[0]
_LOCK = threading.Lock()
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "Pillow", "cv2": "opencv-python", "yaml": "PyYAML"}


class Pickled(NamedTuple):
    """blob: the pickle; packages: name -> version of what the function imports; source: '' when it cannot be found."""

    blob: bytes
    packages: Dict[str, str]
    source: str
    first_line: int
    file_name: str


def pickle(function: Any) -> Pickled:
    """Pickles a function by value, with the globals that it refers to and nothing else.

    Raises TypeError for something that is no function, CannotPickle naming what in it cannot be pickled.
    """
    if not callable(function) or inspect.isclass(function):
        raise TypeError("a handler should be a function; this is a %s" % type(function).__name__)
    _check_modules(function, set())
    with _LOCK, _as_main():
        try:
            blob = dill.dumps(function, byref=False, recurse=True)
        except Exception as error:
            raise CannotPickle(_explain(function, error)) from error
    source, first_line, file_name = _source(function)
    return Pickled(blob, _packages(function), source, first_line, file_name)


@contextlib.contextmanager
def _as_main() -> Iterator[None]:
    """While it lasts, functions and classes of the user's own modules say that they are of __main__: dill then pickles them by
    value. Those of installed packages stay references, for the platform has these packages."""
    changed: List[Tuple[Any, str]] = []
    for name, module in list(sys.modules.items()):
        if not _is_own(name, module):
            continue
        for one in _defined_in(module, name):
            try:
                one.__module__ = "__main__"
            except (AttributeError, TypeError):
                continue
            changed.append((one, name))
    try:
        yield
    finally:
        for one, name in changed:
            one.__module__ = name


def _defined_in(holder: Any, name: str) -> Iterator[Any]:
    """Functions and classes that a module's, or a class's, own text defines; methods and inner classes too."""
    for one in list(vars(holder).values()):
        for inner in (one, getattr(one, "__func__", None), getattr(one, "fget", None), getattr(one, "fset", None)):
            if isinstance(inner, (types.FunctionType, type)) and getattr(inner, "__module__", None) == name:
                yield inner
                if isinstance(inner, type):
                    for found in _defined_in(inner, name):
                        yield found


def _is_own(name: str, module: Any) -> bool:
    """Whether a module is the user's: a file that is neither of Python itself nor of an installed package."""
    file = getattr(module, "__file__", None)
    if not isinstance(module, types.ModuleType) or name == "__main__" or not isinstance(file, str):
        return False
    if name.split(".")[0] == _HERE:
        return False
    path = os.path.realpath(file)
    return not any(path.startswith(root + os.sep) for root in _installed())


def _installed() -> Set[str]:
    roots = {os.path.realpath(path) for path in sysconfig.get_paths().values() if path}
    roots |= {
        os.path.realpath(path) for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")
    }
    # a virtual environment's own folder holds its interpreter's data too, and may lie within the user's
    return {root for root in roots if os.path.basename(root) not in ("bin", "Scripts")} - {
        os.path.realpath(sys.prefix),
        os.path.realpath(sys.base_prefix),
    }


def _check_modules(function: Any, seen: Set[int]) -> None:
    for name, value in _globals(function):
        if isinstance(value, types.ModuleType) and _is_own(value.__name__, value):
            raise CannotPickle(
                "%s refers to module %r (as %s), which is only on this machine: import what it needs by name "
                "(from %s import ...), so that it is pickled too"
                % (function.__name__, value.__name__, name, value.__name__)
            )
        if isinstance(value, types.FunctionType) and id(value) not in seen and _is_own_function(value):
            seen.add(id(value))
            _check_modules(value, seen)


def _is_own_function(function: types.FunctionType) -> bool:
    return function.__module__ == "__main__" or _is_own(function.__module__, sys.modules.get(function.__module__))


def _functions(function: Any) -> List[types.FunctionType]:
    """The function and, under decorators, those that it wraps."""
    found: List[types.FunctionType] = []
    while function is not None and len(found) < 50:
        plain = getattr(function, "__func__", function)
        if isinstance(plain, types.FunctionType):
            found.append(plain)
        function = getattr(function, "__wrapped__", None)
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for inner in _codes(constant):
                yield inner


def _globals(function: Any) -> List[Tuple[str, Any]]:
    """Names and values of the globals that the function's code refers to."""
    found: Dict[str, Any] = {}
    for one in _functions(function):
        for code in _codes(one.__code__):
            for name in code.co_names:
                if name in one.__globals__:
                    found[name] = one.__globals__[name]
    return sorted(found.items())


def _explain(function: Any, error: Exception) -> str:
    """What in the function cannot be pickled."""
    culprits = _culprits(function, set())
    why = "%s: %s" % (type(error).__name__, error)
    if not culprits:
        return "the function cannot be pickled: " + why
    return "the function cannot be pickled, because of %s (%s). Make it inside the function instead" % (
        "; ".join(culprits),
        why,
    )


def _culprits(function: Any, seen: Set[int], path: str = "") -> List[str]:
    found = []
    for where, name, value in _parts(function):
        if id(value) in seen or _can_be_pickled(value):
            continue
        seen.add(id(value))
        inner = _culprits(value, seen, "%s%s -> " % (path, name)) if isinstance(value, types.FunctionType) else []
        shown = "%s%s %r, a %s" % (where, " of " + path.rstrip(" ->") if path else "", name, _kind(value))
        found += inner or [shown]
    return found


def _kind(value: Any) -> str:
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__name__
    return value.__name__ if isinstance(value, type) else "%s.%s" % (type(value).__module__, type(value).__name__)


def _parts(function: Any) -> Iterator[Tuple[str, str, Any]]:
    for name, value in _globals(function):
        yield "global", name, value
    for one in _functions(function):
        for name, cell in zip(one.__code__.co_freevars, one.__closure__ or ()):  # noqa: B905 - not on Python 3.7
            with contextlib.suppress(ValueError):  # an empty cell
                yield "enclosed variable", name, cell.cell_contents
        for parameter in inspect.signature(one, follow_wrapped=False).parameters.values():
            if parameter.default is not parameter.empty:
                yield "default of argument", parameter.name, parameter.default
    if not isinstance(function, types.FunctionType):
        for name, value in getattr(function, "__dict__", {}).items():
            yield "attribute", name, value


def _can_be_pickled(value: Any) -> bool:
    try:
        dill.dumps(value, byref=False, recurse=True)
    except Exception:  # noqa: BLE001 - its own pickling may raise anything
        return False
    return True


def _packages(function: Any) -> Dict[str, str]:
    """Versions of the installed packages that the function imports or refers to."""
    names: Set[str] = set()
    for one in _functions(function):
        for code in _codes(one.__code__):
            names |= {
                str(step.argval).split(".")[0] for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"
            }
    for _, value in _globals(function):
        module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if isinstance(module, str):
            names.add(module.split(".")[0])
    versions = {name: _version(name) for name in names if name not in ("__main__", _HERE)}
    return {name: version for name, version in versions.items() if version}


def _version(name: str) -> Optional[str]:
    try:
        from importlib import metadata
    except ImportError:  # Python 3.7
        return getattr(sys.modules.get(name), "__version__", None)
    try:
        return metadata.version(_DISTRIBUTIONS.get(name, name))
    except metadata.PackageNotFoundError:
        return None


def _source(function: Any) -> Tuple[str, int, str]:
    for one in reversed(_functions(function)):
        try:
            lines, first = inspect.getsourcelines(one)
        except (OSError, TypeError):
            continue
        source = "".join(lines)
        if len(source) <= SOURCE_LENGTH:
            return source, first, one.__code__.co_filename
    return "", 0, ""
