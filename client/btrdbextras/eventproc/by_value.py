"""A dill pickler that takes the user's own functions, classes and modules along by value, with the names they use alone.

What it writes loads with plain dill: neither this package nor the user's modules are needed there.
"""

import builtins
import contextlib
import enum
import functools
import importlib
import io
import operator
import sys
import types
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

import dill
from dill._dill import _create_cell, _create_function  # every pickle of dill's names them

from btrdbextras.eventproc.names import HERE, found_by_name, is_own, names_in

_POP = b"0"  # a call for its effect leaves its value on the stack
_NEVER = ("__builtins__", "__name__", "__loader__", "__spec__")
_LENT = {"ep": HERE + ".eventproc"}  # where handlers run, this name is there already
_CALL = b"R"
_CELL = type((lambda held: lambda: held)(0).__closure__[0])  # type: ignore[index]


def _binder() -> Any:
    cell = None

    def bind(value: Any) -> None:
        nonlocal cell
        cell = value

    return bind


_BIND = _binder().__code__


class ByValue(dill.Pickler):  # type: ignore[misc]
    """Pickles one object with dump(). Afterwards, or after an error:

    trail: what led to the object that could not be pickled, outermost first; empty when all went well.
    modules: top-level names of the modules that it refers to or imports.
    unknown: names of globals that are used and are not there (yet).
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, byref=False, recurse=True)
        self.trail: List[str] = []
        self.modules: Set[str] = set()
        self.unknown: Set[str] = set()
        self._path: List[str] = []
        self._globals: Dict[int, Dict[str, Any]] = {}  # id of a function's globals -> the dict that stands for them
        self._sent: Set[Tuple[int, str]] = set()  # (id of a dict or a cell, name)
        self._used: Set[str] = set()  # names in any code so far: what is sent of the user's modules
        self._own_modules: List[types.ModuleType] = []
        self._classes = 0  # how many are half made
        self._waiting: List[Tuple[List[str], Callable[[Any], None], Any]] = []
        self._kept: List[Any] = []  # an id is good while its object lives

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Overrides dill's: called for each object within."""
        try:
            if id(obj) in self.memo or not self._save_own(obj):
                super().save(obj, save_persistent_id)
        except BaseException:
            self.trail = self.trail or list(self._path)
            raise

    def _save_own(self, obj: Any) -> bool:
        """Saves what dill would save otherwise than wanted here; False when it is to do it."""
        if isinstance(obj, types.ModuleType):
            self._save_module(obj)
        elif isinstance(obj, types.FunctionType) and not found_by_name(obj):
            self._save_function(obj)
        elif type(obj) is _CELL:
            self.save_reduce(_create_cell, (None,), obj=obj)
        elif isinstance(obj, type) and not found_by_name(obj):
            self._save_class(obj)
        else:
            if isinstance(obj, io.IOBase) and not isinstance(obj, (io.BytesIO, io.StringIO)):
                raise TypeError("an open file stays on the machine that opened it")
            if isinstance(obj, (type, types.FunctionType, types.BuiltinFunctionType)):
                self._note(obj.__module__)
            return False
        return True

    def _note(self, module: Any) -> None:
        if isinstance(module, str):
            self.modules.add(module.split(".")[0])

    def _save_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "__main__" or is_own(module.__name__):
            self.save_reduce(types.ModuleType, (module.__name__,), obj=module)
            self._own_modules.append(module)
            self._when_made(self._fill_modules, None)
        else:
            self._note(module.__name__)
            self.save_reduce(importlib.import_module, (module.__name__,), obj=module)

    def _save_class(self, cls: Any) -> None:
        for one in (type(cls), *cls.__bases__):
            self._do_save(one)  # whole, before it is used to make this one
        if isinstance(cls, enum.EnumMeta) and len(cls.__bases__) <= 2:
            self._save_enum(cls)
            return
        module = cls.__module__
        self._classes += 1
        with contextlib.suppress(AttributeError, TypeError):
            cls.__module__ = "__main__"  # dill takes classes of __main__ by value
        try:
            super().save(cls)
        finally:
            self._classes -= 1
            with contextlib.suppress(AttributeError, TypeError):
                cls.__module__ = module
        self._drain()

    def _save_enum(self, cls: Any) -> None:
        """By its members' names and values, which dill cannot; then its methods, and what its __init__ gave to members."""
        mixed_in = cls.__bases__[0] if len(cls.__bases__) == 2 else None
        make = functools.partial(cls.__bases__[-1], module="__main__", qualname=cls.__qualname__, type=mixed_in)
        members = [(name, member.value) for name, member in cls.__members__.items()]
        self.save_reduce(make, (cls.__name__, members), obj=cls)
        self._when_made(self._fill_enum, cls)

    def _fill_enum(self, cls: Any) -> None:
        for name, value in sorted(vars(cls).items()):
            plain = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(plain, types.FunctionType) and is_own(plain.__module__) and "__new" not in name:
                with self._at("%r of class %r" % (name, cls.__name__)):
                    self._do(setattr, (cls, name, value))
        for member in cls:
            for name, value in sorted(vars(member).items()):
                if not name.startswith("_"):
                    self._do(setattr, (member, name, value))

    def _save_function(self, function: types.FunctionType) -> None:
        source = function.__globals__
        name = str(source.get("__name__"))
        # dill before 0.3.4 gives a function no builtins where its globals have none
        made = {"__name__": "__main__" if is_own(name) else name, "__builtins__": builtins}
        there = self._globals.setdefault(id(source), made)
        self._kept.append(source)
        arguments = (function.__code__, there, function.__name__, None, function.__closure__)
        self.save_reduce(_create_function, arguments, obj=function)
        self._when_made(self._fill_function, function)

    def _when_made(self, fill: Callable[[Any], None], holder: Any) -> None:
        """Fills holder now or, while a class is half made that it may refer to, when that is whole."""
        self._waiting.append((list(self._path), fill, holder))
        self._drain()

    def _drain(self) -> None:
        while self._waiting and not self._classes:
            path, fill, holder = self._waiting.pop(0)
            before, self._path = self._path, path
            try:
                fill(holder)
            finally:
                self._path = before

    def _fill_function(self, function: types.FunctionType) -> None:
        code, label = function.__code__, "function %r" % function.__name__
        found = names_in(code)
        self.modules |= found.imported
        self._used |= found.used
        missing = found.globals - set(function.__globals__) - found.stored
        self.unknown |= {name for name in missing if name not in _LENT and not hasattr(builtins, name)}
        for name in sorted(found.globals & set(function.__globals__)):
            with self._at("global %r of %s" % (name, label)):
                self._fill_global(function.__globals__, name, found.used)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):  # noqa: B905 - not before Python 3.10
            with self._at("enclosed variable %r of %s" % (name, label)):
                self._fill_cell(cell)
        defaults = function.__defaults__ or ()
        arguments = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        for name, value in list(zip(arguments, defaults)) + list((function.__kwdefaults__ or {}).items()):  # noqa: B905
            with self._at("default of argument %r of %s" % (name, label)):
                self._do_save(value)
        for name in ("__defaults__", "__kwdefaults__", "__qualname__", "__doc__"):
            if getattr(function, name):
                self._do(setattr, (function, name, getattr(function, name)))
        for name, value in sorted(vars(function).items()):
            with self._at("attribute %r of %s" % (name, label)):
                self._do(setattr, (function, name, value))
        self._fill_modules()

    def _fill_global(self, source: Dict[str, Any], name: str, used: Set[str]) -> None:
        value = source[name]
        if name in _NEVER or (id(source), name) in self._sent:
            return
        self._sent.add((id(source), name))
        if isinstance(value, types.ModuleType):
            if _LENT.get(name) == value.__name__:
                return
            self._import_submodules(value, used)
        self._do(operator.setitem, (self._globals[id(source)], name, value))

    def _import_submodules(self, package: types.ModuleType, used: Set[str]) -> None:
        """`import scipy.signal` binds scipy alone: where it is loaded, the submodule must be imported too."""
        for name in sorted(used):
            module = sys.modules.get("%s.%s" % (package.__name__, name))
            if isinstance(module, types.ModuleType) and not is_own(module.__name__):
                self._do_save(module)
                self._import_submodules(module, used)

    def _fill_cell(self, cell: Any) -> None:
        if (id(cell), "") in self._sent:
            return
        self._sent.add((id(cell), ""))
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            if sys.version_info >= (3, 7):  # made bound to None; 3.6 leaves it so
                self._do(delattr, (cell, "cell_contents"))
            return
        if sys.version_info >= (3, 7):
            self._do(setattr, (cell, "cell_contents", value))
        else:
            self._do_bind(cell, value)

    def _do_bind(self, cell: Any, value: Any) -> None:
        """Python 3.6 writes a cell by code alone: that of a function that encloses it, called when it is loaded."""
        self.save_reduce(_create_function, (_BIND, {}, "bind", None, (cell,)))
        self.save((value,))
        self.write(_CALL + _POP)

    def _fill_modules(self, _: Any = None) -> None:
        """Sends of the user's modules what any code so far may use."""
        for module in list(self._own_modules):
            for name in sorted(self._used & set(vars(module))):
                if name in _NEVER or (id(module), name) in self._sent:
                    continue
                self._sent.add((id(module), name))
                with self._at("%r of module %r" % (name, module.__name__)):
                    self._do(setattr, (module, name, vars(module)[name]))

    def _do(self, function: Any, arguments: Tuple[Any, ...]) -> None:
        """A call for its effect, when it is loaded."""
        self.save_reduce(function, arguments)
        self.write(_POP)

    def _do_save(self, obj: Any) -> None:
        self.save(obj)
        self.write(_POP)

    @contextlib.contextmanager
    def _at(self, step: str) -> Iterator[None]:
        self._path.append(step)
        try:
            yield
        finally:
            self._path.pop()
