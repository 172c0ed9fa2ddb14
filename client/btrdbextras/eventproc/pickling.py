"""A function -> a pickle that loads where neither its notebook nor its module is, and what is known about it."""

import functools
import importlib
import inspect
import io
import os
import sys
import types
import warnings
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from btrdbextras.errors import CannotPickle
from btrdbextras.eventproc.by_value import ByValue
from btrdbextras.eventproc.names import HERE, imports_own

SOURCE_LENGTH = 200000


class Pickled(NamedTuple):
    """blob: the pickle; packages: name -> version of what the function uses; source: '' when it cannot be found."""

    blob: bytes
    packages: Dict[str, str]
    source: str
    first_line: int
    file_name: str


def pickle(function: Any) -> Pickled:
    """Pickles a function by value: with the globals, classes and modules of the user's own that it uses, and nothing else.

    Installed packages are referred to by name. Annotations do not travel: they may name what is not there, and have no effect.
    Warns of names that are not defined yet and of imports that will fail where it runs.
    Raises TypeError for something that is no function, CannotPickle naming what in it cannot be pickled.
    """
    if not callable(function) or inspect.isclass(function):
        raise TypeError("a handler should be a function; this is %s" % _kind(function))
    file = io.BytesIO()
    pickler = ByValue(file)
    try:
        pickler.dump(function)
    except Exception as error:
        raise CannotPickle(_explain(function, pickler.trail, error)) from error
    _warn(function, pickler)
    return Pickled(file.getvalue(), _versions(pickler.modules), *_source(function))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "the class %s" % value.__name__
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__name__)


def _explain(function: Any, trail: List[str], error: Exception) -> str:
    where = ", reached from ".join(reversed(trail)) or "the function itself"
    return "%r cannot be registered, because of %s: %s (%s). Make it inside the function instead" % (
        _name(function),
        where,
        error,
        type(error).__name__,
    )


def _warn(function: Any, pickler: ByValue) -> None:
    if pickler.unknown:
        warnings.warn(
            "%r uses %s, not defined so far: define it above the function"
            % (_name(function), _listed(pickler.unknown)),
            stacklevel=4,
        )
    own = {name for name in pickler.modules if imports_own(name)}
    if own:
        warnings.warn(
            "%r imports %s inside, which is on this machine only: import it above the function, so that it is taken along"
            % (_name(function), _listed(own)),
            stacklevel=4,
        )


def _listed(names: Set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _versions(modules: Set[str]) -> Dict[str, str]:
    """Distribution -> version of those modules that come from an installed one."""
    try:
        metadata: Any = importlib.import_module("importlib.metadata")
    except ImportError:  # Python 3.7, of which some of the library's own modules have a version too
        used = [(name, sys.modules.get(name)) for name in modules - {HERE, "dill"}]
        installed = [pair for pair in used if "-packages" + os.sep in str(getattr(pair[1], "__file__", ""))]
        versions = {name: getattr(module, "__version__", None) for name, module in installed}
        return {name: version for name, version in versions.items() if isinstance(version, str)}
    owners = _owners()
    found: Dict[str, str] = {}
    for module in modules - {HERE, "dill"}:
        for distribution in owners.get(module, [module]):
            try:
                found[distribution] = str(metadata.version(distribution))
            except metadata.PackageNotFoundError:
                continue
    return found


@functools.lru_cache(maxsize=1)
def _owners() -> Dict[str, List[str]]:
    """Top-level module -> the distributions that bring it, where Python can tell (3.10 and later)."""
    metadata: Any = importlib.import_module("importlib.metadata")
    return dict(metadata.packages_distributions()) if hasattr(metadata, "packages_distributions") else {}


def plain(function: Any) -> Optional[types.FunctionType]:
    """The function beneath decorators, partials, methods and callable objects."""
    for _ in range(50):
        if isinstance(function, functools.partial):
            function = function.func
        elif getattr(function, "__wrapped__", None) is not None:
            function = function.__wrapped__
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif isinstance(function, types.FunctionType):
            return function
        else:
            function = vars(type(function)).get("__call__")
    return None


def _source(function: Any) -> Tuple[str, int, str]:
    found = plain(function)
    if found is None:
        return "", 0, ""
    try:
        lines, first = inspect.getsourcelines(found)
    except (OSError, TypeError, SyntaxError):
        return "", 0, found.__code__.co_filename
    source = "".join(lines)
    return (source if len(source) <= SOURCE_LENGTH else ""), first, found.__code__.co_filename
