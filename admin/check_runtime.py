"""Which handlers would be refused by a runtime: what an operator runs before changing its image."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from admin import desk
from admin.say import as_json, fail, out, table
from ledger import Ledger
from ledger.audit import HANDLER, Act, note
from ledger.handlers import HandlerCode, blob, codes

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Checked:
    """A handler and how it fared. loads: None when the sandbox could not say; lacking: modules it will miss when called."""

    id: int
    name: str
    version: int
    owner: str
    loads: bool | None
    reason: str
    lacking: tuple[str, ...]


def check_runtime(
    name: Annotated[str, typer.Argument(help="the runtime, as in py3.7")],
    python: Annotated[
        Path | None,
        typer.Option(help="the interpreter to check, for instance a new image's; default: EXECUTOR_RUNTIMES'"),
    ] = None,
    ask: Annotated[bool, typer.Option("--ask", help="writes what `python -m executor.check` reads, and stops")] = False,
    told: Annotated[Path | None, typer.Option(help="file with what that answered, in place of an interpreter")] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Loads every living handler of a runtime in its sandbox, calls none, and lists those that would be refused.

    Run it where the interpreter is; or with --ask, then executor.check where the interpreter is, then with --told.
    Exit code 1 when a handler would be refused, 2 when the runtime cannot be had.
    """
    with desk.ledger() as ledger:
        with ledger.read() as session:
            found = codes(session, name)
        if ask:
            for one in found:
                sys.stdout.write(_question(ledger, one) + "\n")
            return
        interpreter = told or (python or _configured(name)).absolute()
        checked = list(_read(told, found) if told else _check(name, interpreter, ledger, found))
    bad = [one for one in checked if not one.loads]
    if json:
        as_json([dataclasses.asdict(one) for one in checked])
    else:
        _tell(name, interpreter, checked, bad)
    if bad:
        raise typer.Exit(1)


def _tell(name: str, interpreter: Path, checked: Sequence[Checked], bad: Sequence[Checked]) -> None:
    rows = [
        (
            f"{one.name} v{one.version}",
            one.id,
            one.owner,
            one.reason if one.loads is False else f"not told: {one.reason}",
        )
        for one in bad
    ]
    if rows:
        table(f"{name} would refuse", ("handler", "id", "owner", "because"), rows)
    short = [
        (f"{one.name} v{one.version}", one.id, one.owner, ", ".join(one.lacking)) for one in checked if one.lacking
    ]
    if short:
        table(f"\n{name} lacks what these import when they are called", ("handler", "id", "owner", "modules"), short)
    out.print(f"{len(checked) - len(bad)} of {len(checked)} handlers of {name} load with {interpreter}", markup=False)


def _configured(name: str) -> Path:
    pairs = dict(pair.strip().partition("=")[::2] for pair in os.environ.get("EXECUTOR_RUNTIMES", "").split(","))
    if not pairs.get(name):
        there = ", ".join(filter(None, pairs)) or "nothing"
        raise fail(f"give --python: EXECUTOR_RUNTIMES names {there}, not {name}", 2)
    return Path(pairs[name])


def _check(name: str, interpreter: Path, ledger: Ledger, found: Sequence[HandlerCode]) -> Iterator[Checked]:
    """One process of the executor's checks them all: no pickle is loaded here."""
    if not found:
        return
    command = [sys.executable, "-m", "executor.check", "--runtime", name, "--python", str(interpreter)]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT
        ) as process,
    ):
        for one in found:
            told = _ask(process, _question(ledger, one))
            if told is None:
                process.wait()
                said.seek(0)
                lines = said.read().strip().splitlines()
                raise fail(lines[-1] if lines else "the check ended without a word", 2)
            yield _checked(one, told)
        process.stdin.close()  # type: ignore[union-attr]


def _question(ledger: Ledger, one: HandlerCode) -> str:
    with ledger.write() as session:
        body = blob(session, one.digest) or b""
        read = {"name": one.name, "owner": one.owner, "version": one.version, "pickle": True}
        note(session, desk.operator(), Act.READ_CODE, HANDLER, one.id, **read)
    asked = {"id": one.id, "hook": one.hook, "requirements": one.requirements}
    return json.dumps({**asked, "blob": base64.b64encode(body).decode()})


def _checked(one: HandlerCode, told: dict[str, Any]) -> Checked:
    return Checked(one.id, one.name, one.version, one.owner, told["loads"], told["text"], tuple(told["lacking"]))


def _read(file: Path, found: Sequence[HandlerCode]) -> Iterator[Checked]:
    try:
        answers = {line["id"]: line for line in map(json.loads, file.read_text().splitlines())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fail(f"{file} should have executor.check's answers, one JSON object a line: {error}", 2) from error
    for one in found:
        if one.id not in answers:
            raise fail(f"{file} has no answer for {one.name} (id {one.id}): it ended early, or is of another day", 2)
        yield _checked(one, answers[one.id])


def _ask(process: subprocess.Popen[str], question: str) -> dict[str, Any] | None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(question + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return dict(json.loads(line)) if line else None
