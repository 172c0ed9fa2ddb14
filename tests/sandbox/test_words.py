"""What a handler raises, prints or returns: whatever it is, the run has the right outcome and a clear text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from executor.sandbox.job import MIB, Ended
from schemas.records import Outcome

from .conftest import Stands

Run = Callable[..., Ended]
FAILED, CRASHED, REFUSED = Outcome.FAILED, Outcome.CRASHED, Outcome.REFUSED
SUCCEEDED, TIMED_OUT, OUT_OF_MEMORY = Outcome.SUCCEEDED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY

# what is done -> outcomes, words of the error or of the text
RAISED: dict[str, tuple[str, Outcome, str]] = {
    "SystemExit": ("raise SystemExit('stop')", FAILED, "stop"),
    "sys.exit": ("import sys; sys.exit(3)", FAILED, "3"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", FAILED, ""),
    "GeneratorExit": ("raise GeneratorExit", FAILED, ""),
    "a class of its own": ("class Own(BaseException): pass\nraise Own('mine')", FAILED, "mine"),
    "recursion": ("def f(): return f()\nf()", FAILED, "recursion"),
    "a huge argument": ("raise ValueError('x' * 50_000_000)", FAILED, "xxxx"),
    "a million arguments": ("raise ValueError(*range(1_000_000))", FAILED, "(0, 1, 2"),
    "causes in a circle": (
        "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a",
        FAILED,
        "a",
    ),
    "a chain of causes": (
        "last = None\nfor n in range(20_000):\n    e = ValueError(n)\n    e.__cause__ = last\n    last = e\nraise last",
        FAILED,
        "19999",
    ),
    "groups within groups": (
        "e = ValueError('in')\nfor n in range(500):\n    e = ExceptionGroup(str(n), [e])\nraise e",
        FAILED,
        "499",
    ),
    "a name as long as a book": ("raise type('N' * 1_000_000, (Exception,), {})('m')", FAILED, "m"),
    "a metaclass that refuses": (
        "class M(type):\n    def __getattribute__(c, n): raise RuntimeError('no')\n"
        "class E(Exception, metaclass=M): pass\nraise BaseException.__new__(E, 'm')",
        FAILED,
        "",
    ),
    "a __class__ that lies": (
        "class E(Exception):\n    __class__ = property(lambda s: int)\nraise E('m')",
        FAILED,
        "m",
    ),
    "a __str__ that raises": (
        "class E(Exception):\n    def __str__(s): raise ValueError('no')\n    __repr__ = __str__\nraise E",
        FAILED,
        "cannot be shown",
    ),
    "a __str__ that exits": (
        "class E(Exception):\n    def __str__(s): raise SystemExit\nraise E",
        FAILED,
        "cannot be shown",
    ),
    "a __str__ that is no text": (
        "class E(Exception):\n    def __str__(s): return 7\nraise E",
        FAILED,
        "cannot be shown",
    ),
    "a __str__ without end": (
        "class E(Exception):\n    def __str__(s):\n        while True: pass\nraise E",
        TIMED_OUT,
        "killed at its time limit",
    ),
    "a __traceback__ that is none": (
        "class E(Exception):\n    __traceback__ = property(lambda s: 1 / 0)\nraise E('m')",
        FAILED,
        "m",
    ),
    "lone surrogates": ("raise ValueError('a\\ud800b\\x00c')", FAILED, "a\\ud800b\\x00c"),
    "MemoryError of its own": ("raise MemoryError('mine')", OUT_OF_MEMORY, "its limit is"),
    "SIGSEGV": ("import ctypes; ctypes.string_at(0)", CRASHED, "SIGSEGV"),
    "os._exit": ("import os; os._exit(7)", CRASHED, "status 7"),
    "os._exit(0)": ("import os; os._exit(0)", CRASHED, "status 0"),
    "os.abort": ("import os; os.abort()", CRASHED, "it died by signal SIG"),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", CRASHED, "it died by signal SIG"),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15)", CRASHED, "it died by signal SIG"),
    "SIGSTOP": ("import os; os.kill(os.getpid(), 19)", CRASHED, "such as SIGKILL, SIGTERM, SIGSTOP"),
    "SIGKILL to its group": ("import os; os.killpg(0, 9)", CRASHED, "it died by signal SIG"),
    "exec": ("import os; os.execv('/bin/true', ['true'])", CRASHED, "status 0"),
    "dies in a thread": (
        "import os, threading, time; threading.Thread(target=os._exit, args=(5,)).start(); time.sleep(9)",
        CRASHED,
        "status 5",
    ),
}


def doing(code: str) -> Callable[..., Any]:
    """A handler that does it and returns the name `it`, when there is one."""

    def handler(**kwargs: Any) -> Any:
        names: dict[str, Any] = {}
        exec(code, names)
        return names.get("it")

    return handler


@pytest.mark.parametrize("what", RAISED)
def test_what_it_raises_is_its_outcome_with_a_clear_text(stands: Stands, level: str, what: str) -> None:
    code, outcome, words = RAISED[what]

    ended = stands.run(level, doing(code), wall_s=15.0 if outcome is not TIMED_OUT else 1.0, warning_s=0.2)

    assert ended.outcome is outcome, ended
    assert ended.error is not None and words in ended.error.message
    assert ended.error.type
    assert len(ended.error.message) < 20_000 and len(ended.error.traceback) < 100_000
    (ended.error.type + ended.error.message + ended.error.traceback).encode()


RETURNED: dict[str, tuple[str, Outcome, str]] = {
    "five gigabytes": ("it = 'x' * (5 << 30)", OUT_OF_MEMORY, "its limit is 256 MiB"),
    "a text that grows to gigabytes": (
        "class T:\n    def __str__(s): return 'x' * (5 << 30)\nit = T()",
        OUT_OF_MEMORY,
        "its limit is 256 MiB",
    ),
    "a __str__ that raises": ("class T:\n    def __str__(s): raise RuntimeError('no')\nit = T()", FAILED, "no"),
    "a __str__ that exits": ("class T:\n    def __str__(s): raise SystemExit('bye')\nit = T()", FAILED, "bye"),
    "a __str__ that is no text": ("class T:\n    def __str__(s): return 7\nit = T()", FAILED, "returned non-string"),
    "a text that lies": (
        "class T(str):\n    def __getitem__(s, k): return 7\n    def __len__(s): return 1\n    def encode(s): 1 / 0\nit = T('true')",
        SUCCEEDED,
        "true",
    ),
    "a list that holds itself": ("it = []; it.append(it)", SUCCEEDED, "[[...]]"),
    "lists within lists": ("it = []\nfor n in range(100_000): it = [it]", FAILED, "recursion"),
    "lone surrogates": ("it = 'a\\ud800b\\x00c'", SUCCEEDED, "a\\ud800b\\x00c"),
    "a __del__ without end": (
        "class T:\n    def __del__(s):\n        while True: pass\nT()",
        SUCCEEDED,  # the warning ends the loop, and Python ignores what a __del__ raises
        "",
    ),
    "a __getattr__ without end": (
        "class T:\n    def __getattribute__(s, n):\n        while True: pass\n    def __str__(s): return 'asked for nothing'\n"
        "it = T()\nimport builtins; builtins.kept = it",
        SUCCEEDED,
        "asked for nothing",
    ),
}


@pytest.mark.parametrize("what", RETURNED)
def test_what_it_returns_is_its_text_or_its_failure(run: Run, what: str) -> None:
    code, outcome, words = RETURNED[what]
    wall_s = 1.0 if outcome is TIMED_OUT or what == "a __del__ without end" else 10.0

    ended = run(doing(code), memory_bytes=256 * MIB, wall_s=wall_s, warning_s=0.2)

    assert ended.outcome is outcome, ended
    assert words in (ended.text if outcome is SUCCEEDED else ended.error.message if ended.error else "")
    ended.text.encode()


class Trap:
    """What is pickled instead of a function: does its worst at one moment."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def __reduce__(self) -> Any:
        return eval, (LOADS[self.moment],)


LOADS = {
    "raises while it is loaded": "1 / 0",
    "exits while it is loaded": "exec('raise SystemExit')",
    "is no function": "7",
    "refuses to be looked at": "type('T', (), {'__call__': lambda s: 1, '__getattr__': lambda s, n: 1 / 0})()",
    "has a signature that raises": (
        "type('T', (), {'__call__': lambda s, **k: 1, '__signature__': property(lambda s: 1 / 0)})()"
    ),
    "wraps itself": "exec('f = lambda **k: 1; f.__wrapped__ = f; import builtins; builtins.f = f') or f",
}


@pytest.mark.parametrize("moment", LOADS)
def test_what_cannot_be_loaded_is_refused_with_the_reason(run: Run, moment: str) -> None:
    import dill

    ended = run(dill.dumps(Trap(moment)))

    if moment == "wraps itself":
        assert ended.text == "1", ended
        return
    assert ended.outcome is REFUSED, ended
    assert ended.error is not None and ended.error.message


@pytest.mark.parametrize(
    ("moment", "code", "told"),
    [
        ("while its code was loaded", "exec('import os; os._exit(4)')", "status 4"),
        ("while its code was loaded", "exec('import ctypes; ctypes.string_at(0)')", "SIGSEGV"),
    ],
)
def test_a_pickle_that_ends_its_process_is_a_crash_that_says_when(
    run: Run, moment: str, code: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dill

    monkeypatch.setitem(LOADS, moment, code)
    ended = run(dill.dumps(Trap(moment)))

    assert ended.outcome is CRASHED, ended
    assert ended.error is not None and moment in ended.error.message and told in ended.error.message


def test_a_pickle_that_never_loads_is_timed_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import dill

    monkeypatch.setitem(LOADS, "never", "[None for _ in iter(int, 1) if None]")
    ended = run(dill.dumps(Trap("never")), wall_s=1.0, warning_s=0.2)

    assert ended.outcome in (TIMED_OUT, REFUSED), ended
    assert ended.error is not None and "time limit" in ended.error.message
