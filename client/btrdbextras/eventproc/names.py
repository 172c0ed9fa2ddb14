"""Where functions and modules come from, and which names code uses."""

import dis
import functools
import importlib.util
import os
import sys
import sysconfig
import types
from typing import Any, FrozenSet, NamedTuple, Set

HERE = __name__.split(".")[0]


class Names(NamedTuple):
    """globals: names read as globals; stored: set as globals; used: every name, attributes too; imported: modules by import."""

    globals: Set[str]
    stored: Set[str]
    used: Set[str]
    imported: Set[str]


def names_in(code: types.CodeType) -> Names:
    """The names in code and in the functions within it."""
    found = Names(set(), set(), set(code.co_names), set())
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and step.argval:
            found.imported.add(str(step.argval).split(".")[0])
        elif step.opname == "STORE_GLOBAL":
            found.stored.add(str(step.argval))
        elif "GLOBAL" in step.opname or step.opname == "LOAD_NAME":
            found.globals.add(str(step.argval))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_in(constant)
            # a class body reads its own names first
            local = set(constant.co_names) if not constant.co_flags & 2 else set()
            found.globals.update(inner.globals - (local & _bound(constant)))
            found.stored.update(inner.stored)
            found.used.update(inner.used)
            found.imported.update(inner.imported)
    return found


def _bound(code: types.CodeType) -> Set[str]:
    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}
    return names | {"__name__", "__module__", "__qualname__", "__annotations__"}


def found_by_name(obj: Any) -> bool:
    """Whether a function or class is part of an installed module, where its name leads to it."""
    name = getattr(obj, "__module__", None)
    if not isinstance(name, str) or name == "__main__" or is_own(name):
        # builtins say so of themselves, on every Python
        return isinstance(obj, type) and not obj.__flags__ & 0x200
    found: Any = sys.modules.get(name)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj or (isinstance(obj, type) and not obj.__flags__ & 0x200)


def is_own(name: str) -> bool:
    """Whether a loaded module is the user's: a file that is neither of Python itself nor of an installed package."""
    if name == "__main__":
        return True
    if name.split(".")[0] == HERE:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and is_own_file(file)


def imports_own(name: str) -> bool:
    """Whether `import name` would find the user's own file; nothing is imported to find out."""
    if name in sys.modules:
        return name != "__main__" and is_own(name)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.has_location and is_own_file(str(spec.origin))


def is_own_file(file: str) -> bool:
    """Whether the file lies outside of Python's folders and those that packages are installed in."""
    path = os.path.realpath(file)
    return not any(path.startswith(root + os.sep) for root in _installed(tuple(sys.path)))


@functools.lru_cache(maxsize=8)
def _installed(search: Any) -> FrozenSet[str]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    roots = [sysconfig.get_paths()[kind] for kind in kinds]
    roots += [path for path in search if os.path.basename(path) in ("site-packages", "dist-packages", "lib-dynload")]
    return frozenset(os.path.realpath(path) for path in roots)
