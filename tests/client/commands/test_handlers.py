"""eventproc: handlers from a file, tried, registered, listed, removed; and its errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dill
import pytest
from sqlalchemy import select

from ledger.tables import BlobRow
from tests.registry_server import KEYS, Running

from .conftest import Say

HOOK = "ctingress.on_complete"
MAIL = "alice@example.com"


def test_hooks_are_listed_for_people_and_for_scripts(eventproc: Say) -> None:
    assert eventproc("hooks").out == f"{HOOK}\n"
    assert eventproc("hooks", "--json").json() == [HOOK]
    assert eventproc("--json", "hooks").json() == [HOOK]


def test_a_function_in_a_file_is_registered_listed_and_removed(eventproc: Say, registry: Running, peaks: Path) -> None:
    said = eventproc("register", f"{peaks}:peaks", "--tags", "north, line-4", "--tags", "a", "--email", MAIL)

    assert said.code == 0, said.err
    assert said.out.startswith("registered 'peaks' version 0 (id 1) for tags a, line-4, north; runs on py3.")
    assert said.err == "peaks is loaded\n"
    (listed,) = eventproc("handlers", "--json").json()
    assert (listed["name"], listed["tags"], listed["notify_on_failure"]) == ("peaks", ["a", "line-4", "north"], MAIL)
    assert listed["created_at"].endswith("Z")
    lines = eventproc("handlers").out.splitlines()
    assert lines[0].split()[:3] == ["id", "name", "hook"]
    assert lines[1].split()[:3] == ["1", "peaks", HOOK]
    assert eventproc("deregister", "peaks").out == "removed handler 1\n"
    assert eventproc("handlers").err == "no handlers\n"
    assert eventproc("handlers", "--json").json() == []


def test_a_registration_answers_in_json_alone(eventproc: Say, peaks: Path) -> None:
    said = eventproc("register", f"{peaks}:peaks", "--name", "mine", "--on-failure", MAIL, "--json")

    made = said.json()
    assert (made["name"], made["version"], made["notify_on_success"]) == ("mine", 0, "")
    assert made["notify_on_failure"] == MAIL


def test_what_is_registered_travels_with_what_it_uses(eventproc: Say, registry: Running, peaks: Path) -> None:
    eventproc("register", f"{peaks}:peaks")

    with registry.ledger.read() as session:
        body = session.scalars(select(BlobRow.body)).one()
    assert dill.loads(body)(DataSets=[1]) == "1 of 3"


def test_a_function_is_tried_at_the_desk_without_a_platform(say: Say, peaks: Path) -> None:
    said = say("try", f"{peaks}:peaks")

    assert said.code == 0, said.err
    assert "peaks succeeded" in said.out
    assert "3 of 3" in said.out


def test_a_function_that_fails_at_the_desk_ends_with_one(say: Say, peaks: Path) -> None:
    assert say("try", f"{peaks}:fails").code == 1
    said = say("try", f"{peaks}:fails", "--json")
    assert said.code == 1
    assert said.json()["error"] == "KeyError: 'no such phase'"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["register", "peaks.py"], 2, "'peaks.py' should be file.py:function"),
        (["register", "nothing.py:f"], 2, "nothing.py cannot be read: No such file"),
        (["register", "PEAKS:nothing"], 2, "has no 'nothing'; its functions are: peaks, fails"),
        (["register", "PEAKS:LIMIT"], 2, "should be a function"),
        (["register", "PEAKS:peaks", "--hook", "no.hook"], 2, "'no.hook' is no hook; there are: ctingress.on_complete"),
        (["register", "PEAKS:peaks", "--email", "nobody"], 2, "should be one email address"),
        (["register", "PEAKS:peaks", "--timeout", "soon"], 2, "timeout 'soon' should be seconds"),
        (["deregister", "7"], 5, "7"),
        (["deregister", "nothing"], 5, "there is no handler named 'nothing'"),
        (["handlers", "--hook", "no.hook"], 2, "'no.hook' is no hook"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["runs", "--since", "yesterday"], 2, "since 'yesterday' should be how long ago"),
        (["run", "123e4567-zzz"], 2, "is no id of a run"),
    ],
)
def test_a_mistake_is_told_in_a_line_with_its_exit_code(
    eventproc: Say, peaks: Path, words: list[str], code: int, says: str
) -> None:
    said = eventproc(*[word.replace("PEAKS", str(peaks)) for word in words])

    assert said.code == code
    assert says in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_file_with_a_mistake_is_told_with_its_line(say: Say, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "wrong.py").write_text("a = 1\nb = a / 0\n")
    (tmp_path / "broken.py").write_text("def f(:\n")

    assert "line 2: ZeroDivisionError: division by zero" in say("try", f"{tmp_path}/wrong.py:f").err
    assert "broken.py cannot be run: SyntaxError" in say("try", f"{tmp_path}/broken.py:f").err


def test_a_wrong_key_and_somebody_elses_handler_end_with_four(
    eventproc: Say, peaks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventproc("register", f"{peaks}:peaks")

    monkeypatch.setenv("BTRDB_API_KEY", KEYS["bob"])
    assert eventproc("deregister", "peaks").code == 4
    monkeypatch.setenv("BTRDB_API_KEY", "wrong")
    said = eventproc("handlers")
    assert said.code == 4
    assert "does not know this API key" in said.err
    monkeypatch.delenv("BTRDB_API_KEY")
    said = eventproc("handlers")
    assert said.code == 4
    assert said.err == "eventproc: no API key: set the environment variable BTRDB_API_KEY\n"


def test_a_wrong_endpoint_ends_with_three(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTRDB_API_KEY", "key")

    said = say("--endpoint", "127.0.0.1:9", "hooks")
    assert said.code == 3
    assert said.err.startswith("eventproc: no event processing answers at 127.0.0.1:9: check the endpoint")
    assert len(said.err.splitlines()) == 1
    in_json = say("--endpoint", "127.0.0.1:9", "hooks", "--json")
    assert '"kind": "NoServer"' in in_json.err and '"code": 3' in in_json.err
    monkeypatch.delenv("BTRDB_ENDPOINTS", raising=False)
    assert "no endpoint: give --endpoint HOST:PORT" in say("hooks").err
    assert say("--endpoint", "a b", "hooks").code == 2


def test_the_installed_command_answers_without_a_traceback(peaks: Path) -> None:
    command = Path(sys.executable).with_name("eventproc")

    version = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    wrong = subprocess.run(
        [command, "--endpoint", "127.0.0.1:9", "hooks"], capture_output=True, text=True, timeout=60, check=False,
        env={"BTRDB_API_KEY": "key"},
    )  # fmt: skip

    assert version.stdout.startswith("eventproc, version ")
    assert wrong.returncode == 3
    assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_words(say: Say, shell: str) -> None:
    said = say("completion", shell)

    assert said.code == 0
    assert "_EVENTPROC_COMPLETE" in said.out


def test_completion_knows_commands_and_choices() -> None:
    def completed(*words: str) -> list[str]:
        environment = {
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
            "_EVENTPROC_COMPLETE": "bash_complete",
        }
        command = Path(sys.executable).with_name("eventproc")
        done = subprocess.run([command], env=environment, capture_output=True, text=True, timeout=60, check=False)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("eventproc", "ro") == ["rollback"]
    assert completed("eventproc", "runs", "--state", "f") == ["failed"]


def test_help_lists_every_command_and_the_exit_codes(say: Say) -> None:
    said = say("--help").out

    wanted = "hooks handlers register deregister try runs run logs download pause resume rollback replay upload versions source rekey"
    for command in wanted.split():
        assert f"\n  {command} " in said
        assert say(command, "--help").code == 0
    assert "\n    3  nobody answers" in said.replace("      3", "    3")
