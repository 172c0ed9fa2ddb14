"""eventproc-admin check-runtime: which handlers an interpreter would refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.handlers import HandlerView
from tests.admin.conftest import called
from tests.executor.sandbox.conftest import pickled

OWN = f"py{sys.version_info.major}.{sys.version_info.minor}"


def test_it_lists_the_living_handlers_that_would_be_refused_with_owner_and_reason(
    handler: Callable[..., HandlerView], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", module)
    handler("fine", runtime=OWN, blob=pickled(lambda **kwargs: "fine"))
    handler("needy", runtime=OWN, owner="bob", blob=pickled(lambda **kwargs: module))
    handler("elsewhere", runtime="py2.0", blob=b"no pickle")

    result = called("check-runtime", OWN, "--python", sys.executable, code=1)

    assert "needy v0" in result.stdout and "bob" in result.stdout and "only_here" in result.stdout
    assert "fine v0" not in result.stdout and "elsewhere" not in result.stdout
    assert f"1 of 2 handlers of {OWN} load" in result.stdout.replace("\n", " ")


def test_scripts_get_json_and_exit_code_0_when_all_load(
    handler: Callable[..., HandlerView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECUTOR_RUNTIMES", f"{OWN}={sys.executable}")
    handler("fine", runtime=OWN, blob=pickled(lambda **kwargs: "fine"))

    told = json.loads(called("check-runtime", OWN, "--json").stdout)

    assert [(one["name"], one["owner"], one["loads"], one["reason"]) for one in told] == [("fine", "alice", True, "")]


def test_an_interpreter_of_another_python_is_told(handler: Callable[..., HandlerView]) -> None:
    handler("fine", runtime="py3.6", blob=pickled(lambda **kwargs: "fine"))

    result = called("check-runtime", "py3.6", "--python", sys.executable, code=2)

    assert "py3.6 should be Python 3.6" in result.stderr


def test_without_an_interpreter_it_says_how_to_give_one(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTOR_RUNTIMES", "py3.11=/opt/py3.11/bin/python")

    assert "EXECUTOR_RUNTIMES names py3.11, not py3.7" in called("check-runtime", "py3.7", code=2).stderr


def test_where_the_interpreter_is_elsewhere_questions_and_answers_go_by_files(
    handler: Callable[..., HandlerView], tmp_path: Path
) -> None:
    handler("fine", runtime=OWN, blob=pickled(lambda **kwargs: "fine"))
    handler("broken", runtime=OWN, owner="bob", blob=b"no pickle")
    questions = called("check-runtime", OWN, "--ask").stdout

    check = [sys.executable, "-m", "executor.check", "--runtime", OWN, "--python", sys.executable]
    told = subprocess.run(check, input=questions, capture_output=True, text=True, check=True).stdout
    (tmp_path / "told").write_text(told)

    assert f"1 of 2 handlers of {OWN} load" in called(
        "check-runtime", OWN, "--told", str(tmp_path / "told"), code=1
    ).stdout.replace("\n", " ")


def test_answers_that_end_early_are_told(handler: Callable[..., HandlerView], tmp_path: Path) -> None:
    handler("fine", runtime=OWN, blob=b"any")
    (tmp_path / "told").touch()

    result = called("check-runtime", OWN, "--told", str(tmp_path / "told"), code=2)

    assert "no answer for fine" in result.stderr
