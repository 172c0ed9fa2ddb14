"""From a pickle to a call: loads the handler, chooses its arguments, makes a text of what it returns."""

import builtins
import dis
import importlib
import importlib.util
import inspect
import sys
import types
from typing import Any, Dict, List, Optional, Sequence, Set

EVENTPROC = "btrdbextras.eventproc"


class Refused(Exception):
    """The handler cannot be called; the text is for its owner. cause: what was raised, where something was."""

    def __init__(self, text: str, cause: Optional[BaseException] = None) -> None:
        Exception.__init__(self, text)
        self.cause = cause


def load(blob: bytes) -> Any:
    """The handler. From here on user code runs. Raises Refused, MemoryError."""
    try:
        dill = importlib.import_module("dill")
    except ImportError as error:
        raise Refused("this runtime has no dill, so that it can load no handler", error)
    try:
        handler = dill.loads(blob)
    except MemoryError:
        raise
    except ImportError as error:
        name = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and name:
            raise Refused(
                "the handler needs the module %r, which this runtime (%s) does not have" % (name, _python()), error
            )
        raise Refused("the handler cannot be loaded in this runtime (%s): %s" % (_python(), _shown(error)), error)
    except BaseException as error:  # noqa: BLE001 - a pickle may raise anything, SystemExit too
        raise Refused(
            "the handler cannot be loaded by %s: %s. It may come from another Python or another version of a package"
            % (_python(), _shown(error)),
            error,
        )
    if not callable(handler):
        raise Refused("what was registered is no function but of type %s" % type(handler).__name__)
    try:
        _lend_eventproc(handler)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a callable object answers as it likes to what it is asked
        raise Refused("what was registered cannot be looked at: %s" % _shown(error), error)
    return handler


def _python() -> str:
    return "Python %d.%d.%d" % sys.version_info[:3]


def _shown(error: BaseException) -> str:
    try:
        return "%s: %s" % (type(error).__name__, error)
    except BaseException:  # noqa: BLE001 - its __str__ is the user's
        return type(error).__name__


def _lend_eventproc(handler: Any) -> None:
    """btrdbextras.eventproc as `ep`, unimported, where the runtime has it; a handler's own `ep` stands before it."""
    try:
        module = importlib.import_module(EVENTPROC)
    except ImportError:
        return
    builtins.ep = module  # type: ignore[attr-defined]
    for function in _wrapped(handler):
        names = getattr(function, "__globals__", None)
        if isinstance(names, dict):
            names.setdefault("ep", module)


def _wrapped(handler: Any) -> List[Any]:
    """The handler and what its decorators wrap, outermost first."""
    found: List[Any] = []
    while handler is not None and len(found) < 50 and not any(handler is one for one in found):
        found.append(handler)
        handler = getattr(handler, "__wrapped__", None)
    return found


def arguments(handler: Any, given: Dict[str, Any], documented: Sequence[str]) -> Dict[str, Any]:
    """What the handler is called with.

    A name that its signature holds, if there is such a value; **kwargs alone takes the documented ones. A decorated
    function gets what both it and what it wraps accept. Raises Refused for one that cannot be called so.
    """
    ordinary = _of_ordinary(handler, given, documented)
    if ordinary is not None:
        return ordinary
    chosen = set(given)
    chain = _wrapped(handler)
    for function in chain:
        try:
            signature = inspect.signature(function, follow_wrapped=False)
        except (TypeError, ValueError):
            chosen &= set(documented)  # built in: it does not say
            continue
        if function is handler:
            _check(signature, given)
        # a decorator's **kwargs passes on whatever the function beneath it names
        chosen &= _accepted(signature, documented if function is chain[-1] else list(given))
    return {name: given[name] for name in given if name in chosen}


def _of_ordinary(handler: Any, given: Dict[str, Any], documented: Sequence[str]) -> Optional[Dict[str, Any]]:
    """The same for a function without decorators whose every name is given, without inspect's long way; None for any other."""
    if type(handler) is not types.FunctionType or handler.__dict__:
        return None
    code = handler.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if getattr(code, "co_posonlyargcount", 0) or not all(name in given for name in names):
        return None
    rest = documented if code.co_flags & inspect.CO_VARKEYWORDS else ()
    return {name: value for name, value in given.items() if name in names or name in rest}


def _check(signature: inspect.Signature, given: Dict[str, Any]) -> None:
    for parameter in signature.parameters.values():
        if parameter.default is not parameter.empty:
            continue
        if parameter.kind == parameter.POSITIONAL_ONLY:
            raise Refused("the handler takes %r by position only; arguments come by name" % parameter.name)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name not in given:
            there = ", ".join(sorted(given))
            raise Refused("the handler asks for an argument %r; there are %s" % (parameter.name, there))


def _accepted(signature: inspect.Signature, rest: Sequence[str]) -> Set[str]:
    """The names that a signature takes; rest: what goes into its **kwargs."""
    accepted: Set[str] = set()
    for parameter in signature.parameters.values():
        if parameter.kind == parameter.VAR_KEYWORD:
            accepted |= set(rest)
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            accepted.add(parameter.name)
    return accepted


def lacking(handler: Any) -> List[str]:
    """The modules that the code of a handler imports, in it or in functions within it, and that are not to be found here."""
    names: Dict[str, None] = {}
    codes = [getattr(function, "__code__", None) for function in _wrapped(handler)]
    for code in codes:
        if code is None:
            continue
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
        level = 0
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("LOAD_CONST", "LOAD_SMALL_INT") and isinstance(instruction.argval, int):
                level = instruction.argval
            elif instruction.opname == "IMPORT_NAME" and not level:
                names[str(instruction.argval).split(".")[0]] = None
    return [name for name in names if not _found(name)]


def _found(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def text_of(value: Any, limit: int) -> str:
    """The returned value as a text of at most limit characters; nothing for None. Raises what its __str__ raises."""
    if value is None:
        return ""
    text = str(value)
    # a subclass of str may say anything of itself; its characters are what counts
    return str.__getitem__(text, slice(0, limit))
