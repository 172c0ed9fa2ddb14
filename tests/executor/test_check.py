"""A handler is loaded in a sandbox without being called."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.ask import Registry
from executor.check import Checker, Verdict, check
from executor.index import PYPI, index_of
from executor.packages import Bounds, Packages
from executor.sandbox.job import MIB, Access
from executor.sandbox.runtime import SandboxedRuntime
from tests.executor.sandbox.conftest import RUNTIME, pickled
from tests.registry_server import HOOK, TOKEN, refusal, running


@pytest.fixture(scope="module")
def runtime() -> Iterator[SandboxedRuntime]:
    made = SandboxedRuntime(RUNTIME, Access(None), warm=1, scratch_bytes=64 * MIB)
    made.start()
    yield made
    made.close()


def needing_a_module(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The pickle of a function that holds a module which is nowhere but here."""
    module = types.ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", module)

    def handler(**kwargs: object) -> object:
        return module

    return pickled(handler)


def test_one_that_loads_is_not_called(runtime: SandboxedRuntime) -> None:
    def handler(DataSets: object, **kwargs: object) -> None:
        raise AssertionError("it was called")

    assert check(runtime, HOOK, pickled(handler)) == Verdict(True, "")


def test_one_that_needs_a_module_is_refused_by_the_modules_name(
    runtime: SandboxedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = check(runtime, HOOK, needing_a_module(monkeypatch))

    assert verdict.loads is False
    assert "needs the module 'only_here'" in verdict.text


def test_one_with_an_argument_that_there_is_not_is_refused(runtime: SandboxedRuntime) -> None:
    def handler(datasets: object) -> None:
        pass

    verdict = check(runtime, HOOK, pickled(handler))

    assert verdict.loads is False
    assert "asks for an argument 'datasets'; there are DataSets, File" in verdict.text


def test_what_it_imports_when_it_is_called_and_is_not_there_is_told(runtime: SandboxedRuntime) -> None:
    def handler(**kwargs: object) -> None:
        import json

        import no_such_package.part  # type: ignore[import-not-found]

        def inner() -> object:
            import nor_this  # type: ignore[import-not-found]

            return nor_this

        print(json, no_such_package, inner)

    assert check(runtime, HOOK, pickled(handler)) == Verdict(True, "", ("no_such_package", "nor_this"))


def test_one_that_kills_its_process_while_it_is_loaded_is_refused(runtime: SandboxedRuntime) -> None:
    verdict = check(runtime, HOOK, b"cos\n_exit\n(I3\ntR.")

    assert verdict.loads is False
    assert "status 3" in verdict.text and "while its code was loaded" in verdict.text


@pytest.mark.parametrize(
    "wants",
    [
        "bytearray(600 << 20)",
        "[__import__('os').fork() or __import__('time').sleep(60) for _ in range(40)]",
        "[__import__('threading').Thread(target=__import__('time').sleep, args=(60,), daemon=True).start() for _ in range(40)]",
    ],
)
def test_one_that_takes_more_than_the_check_has_is_not_refused(runtime: SandboxedRuntime, wants: str) -> None:
    verdict = check(runtime, HOOK, f"cbuiltins\neval\n(V{wants}\ntR.".encode())

    assert verdict.loads is None
    assert verdict.text.startswith("loading it takes more than the check has, which is less than a run has: ")


def test_a_registration_is_refused_by_the_name_of_the_module_when_an_executor_is_there(
    runtime: SandboxedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, check_s=60.0) as registry:
        asks = Registry(registry.internal, lambda: TOKEN, registry.ca, 10.0, 64 * MIB)
        bounds = Bounds(64 * MIB, 16 * MIB, 60.0, 512 * MIB)
        packages = Packages(tmp_path / "packages", {"py3.11": RUNTIME.python}, index_of(PYPI, "", None), bounds)
        checker = Checker(asks, "one", {"py3.11": runtime}, packages)
        stop = threading.Event()
        asks.next_check("one", ["py3.11"], 0)  # it is there
        thread = threading.Thread(target=checker.run, args=(stop,))
        thread.start()
        try:
            status, said = refusal(lambda: registry.register(blob=needing_a_module(monkeypatch)))
            good = registry.register(blob=pickled(lambda **kwargs: "fine"))
        finally:
            stop.set()
            registry.servers.checks.close()
            thread.join(60)
            asks.close()

    assert status == "INVALID_ARGUMENT"
    assert said.startswith("blob: does not load in py3.11: the handler needs the module 'only_here'")
    assert good.check == "loads in py3.11"
