"""Which Pythons could have made a pickle, read from its opcodes; nothing is ever loaded.

A handler's code object lies in the pickle as a call of types.CodeType (or dill's _create_code) with a tuple. How long that
tuple is tells 3.7 from 3.8/3.9, 3.10 and 3.11+; which instructions its bytecode uses tells the rest apart, as far as it can
be told: versions are candidates as long as they have all of them.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import Any

MOST_OPCODES = 3_000_000
"""Of a pickle: more would keep the registry busy for seconds."""
_LONGEST_TUPLE = 64

# bit n: opcode n exists (module `opcode` of each version)
_INSTRUCTIONS = {
    "3.6": 0x7FFFE7BCF79FFFF7FFFFFBFFFB9C00003FDB9E3E,
    "3.7": 0x37FFFE7BC779FFFF7FFFFFBFFFB9C00003FDB9E3E,
    "3.8": 0xF7FFFE7BC741FFFF7FFFEFBFFFBFC00003FDB9E7E,
    "3.9": 0x3F3C1FE7BC767FFFF7FEFCFFFFFBDF00003FDB9E7E,
    "3.10": 0x3F3D1FE7BE76FFFFFFFEFCFFFFFBDE0007FFDB9E7E,
    "3.11": 0x1F87D39BF5FFF7DFDFFFFFFFC0CF0307E003BC2009E07,
    "3.12": 0x7FFFE000000000000001F83C39EFFFFFFFFC7FFFFEA80CB030FE003BCE029A3F,
    "3.13": 0x7FFFF000000000000000000000200000007FFFFFFFFFFFFFFFFFFFFFFFFFFFF7,
}
KNOWN = frozenset(_INSTRUCTIONS)
"""The minor versions that can be told by their pickles."""
_RESUME = {"3.11": 151, "3.12": 151, "3.13": 149}
"""From 3.11 on every code object has this instruction."""

_SHAPES = {
    (15, False): ("3.6", "3.7"),
    (16, False): ("3.8", "3.9", "3.10"),  # dill before 0.3.5 knows no 3.10
    (16, True): ("3.10",),
    (18, False): ("3.11", "3.12", "3.13"),
    (18, True): ("3.11", "3.12", "3.13"),
}
"""(arguments, whether dill put co_lnotab before them) -> who calls CodeType so."""


@dataclass(frozen=True)
class BlobFacts:
    """candidates: minor versions ('3.11') that could have made it, oldest first, empty when it fits none that is known;
    by_reference: the module that it names instead of holding code, '' when it names none; None: it holds code."""

    candidates: tuple[str, ...]
    by_reference: str | None


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Call:
    function: Any
    arguments: Any


@dataclass(frozen=True)
class _Code:
    candidates: frozenset[str]


_OTHER = object()
_MARK = object()


def read_blob(blob: bytes) -> BlobFacts:
    """What a pickle tells of its maker. Raises ValueError saying where it cannot be read; takes at most some seconds."""
    machine = _Machine()
    machine.run(blob)
    if not machine.codes:
        return BlobFacts((), _module_of(machine))
    left = frozenset(_INSTRUCTIONS)
    for code in machine.codes:
        left &= code.candidates
    return BlobFacts(tuple(version for version in _INSTRUCTIONS if version in left), None)


def versions_named(text: str) -> str:
    """'3.11.7' -> '3.11'. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,2}\.\d{1,3})(\.\d{1,3})?\S{0,20}", text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no Python version; it should be like 3.11.7")
    return found.group(1)


def _module_of(machine: _Machine) -> str:
    if isinstance(machine.result, _Global):
        return machine.result.module
    named = [one.module for one in machine.globals if not one.module.startswith(("dill", "copyreg"))]
    return named[0] if named else ""


class _Machine:
    """The pickle's stack with what matters here: names, calls, short tuples, bytes; all else is one placeholder."""

    def __init__(self) -> None:
        self.codes: list[_Code] = []
        self.globals: list[_Global] = []
        self.result: Any = _OTHER
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, blob: bytes) -> None:
        """Goes through all opcodes; raises ValueError."""
        position = 0
        try:
            for count, (opcode, argument, at) in enumerate(pickletools.genops(blob)):
                position = at or 0
                if count > MOST_OPCODES:
                    raise ValueError(f"it has more than {MOST_OPCODES} opcodes")
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
            raise ValueError(f"at byte {position}: {error or error.__class__.__name__}") from error

    def _step(self, name: str, argument: Any) -> None:
        push = self._stack.append
        if name in ("PROTO", "FRAME", "NEXT_BUFFER", "READONLY_BUFFER"):
            return
        if name == "STOP":
            self.result = self._stack.pop()
        elif name in _TUPLES:
            self._tuple(_TUPLES[name])
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memo[int(argument)])
        elif name == "MARK":
            push(_MARK)
        elif name == "DUP":
            push(self._stack[-1])
        elif name == "GLOBAL":
            self._global(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL":
            attribute, module = self._stack.pop(), self._stack.pop()
            self._global(module if isinstance(module, str) else "?", attribute if isinstance(attribute, str) else "?")
        elif name == "REDUCE":
            given, function = self._stack.pop(), self._stack.pop()
            push(self._call(function, given))
        elif name in _CONSTANTS:
            push(argument)
        else:
            self._others(name)

    def _others(self, name: str) -> None:
        """Opcodes of which only the effect on the stack's height matters."""
        if name in _TO_MARK:
            self._to_mark()
        elif name in _DROPS:
            del self._stack[len(self._stack) - _DROPS[name] :]
        elif name not in _PUSHES:
            raise ValueError(f"opcode {name} is not known")
        if name in _PUSHES:
            self._stack.append(_OTHER)

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _tuple(self, length: int | None) -> None:
        if length is not None and length > len(self._stack):
            raise IndexError(f"a tuple of {length} from a stack of {len(self._stack)}")
        items = self._to_mark() if length is None else self._stack[len(self._stack) - length :]
        if length:
            del self._stack[len(self._stack) - length :]
        self._stack.append(tuple(items) if len(items) <= _LONGEST_TUPLE else _OTHER)

    def _global(self, module: str, name: str) -> None:
        found = _Global(module, name)
        self.globals.append(found)
        self._stack.append(found)

    def _call(self, function: Any, given: Any) -> Any:
        if (
            function == _Global("_codecs", "encode")
            and isinstance(given, tuple)
            and given
            and isinstance(given[0], str)
        ):
            return given[0].encode("latin-1")  # bytes in protocol 2
        if _makes_code(function) and isinstance(given, tuple):
            self.codes.append(_code(given))
        return _Call(function, given if isinstance(given, tuple) and len(given) <= 2 else _OTHER)


_TUPLES: dict[str, int | None] = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None}
_CONSTANTS = frozenset(
    (
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_TO_MARK = frozenset(["LIST", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK", "OBJ", "INST"])
_DROPS = {"APPEND": 1, "SETITEM": 2, "POP": 1, "BUILD": 1, "BINPERSID": 1, "NEWOBJ": 2, "NEWOBJ_EX": 3}
_PUSHES = frozenset(
    (
        *("LIST", "DICT", "FROZENSET", "OBJ", "INST", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
        *("BINPERSID", "PERSID", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"),
    )
)


def _makes_code(function: Any) -> bool:
    if isinstance(function, _Call):  # dill._dill._load_type('CodeType')
        return isinstance(function.function, _Global) and function.arguments == ("CodeType",)
    return isinstance(function, _Global) and function.name in ("CodeType", "_create_code", "code")


def _code(given: tuple[Any, ...]) -> _Code:
    lnotab_first = isinstance(given[0], bytes) if given else False
    arguments = given[1:] if lnotab_first else given
    shaped = _SHAPES.get((len(arguments), lnotab_first), ())
    bytecode = next((one for one in arguments if isinstance(one, bytes)), b"")
    return _Code(frozenset(version for version in shaped if _fits(bytecode, version)))


def _fits(bytecode: bytes, version: str) -> bool:
    used = set(bytecode[::2])  # wordcode since 3.6: every other byte is an instruction
    known = _INSTRUCTIONS[version]
    return all(known >> one & 1 for one in used if one or version not in _RESUME) and _resumes(used, version)


def _resumes(used: set[int], version: str) -> bool:
    return version not in _RESUME or _RESUME[version] in used
