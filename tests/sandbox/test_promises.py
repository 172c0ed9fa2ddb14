"""docs/sandbox.md is a list of promises: what it names is there, and what is there it names."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import pytest

from executor.sandbox import filesystem, plan, pod
from executor.sandbox.filesystem import Described
from executor.sandbox.job import Access
from executor.sandbox.levels import LAYERS, REQUIRED, Level

from .sandboxes import REPOSITORY

PAGE = (REPOSITORY / "docs/sandbox.md").read_text()
HERE = REPOSITORY / "tests/sandbox"


@dataclass(frozen=True)
class Promise:
    """One line of the page's table."""

    text: str
    kept_by: tuple[str, ...]
    attacked_by: tuple[str, ...]
    levels: tuple[str, ...]


def table(heading: str) -> list[list[str]]:
    """The cells of the table under the line that begins so, without its rule."""
    lines = PAGE[PAGE.index(heading) :].splitlines()
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return [row for row in rows[1:] if not set("".join(row)) <= set("-")]


def promises() -> list[Promise]:
    return [
        Promise(row[0], tuple(re.findall("`([^`]+)`", row[1])), tuple(re.findall("`([^`]+)`", row[2])), tuple(row[3:]))
        for row in table("| a handler |")
    ]


def steps() -> set[str]:
    """The names of all steps of both plans."""
    access = Access("127.0.0.1:4411")
    built = filesystem.root(Described("3.11.7", ()), access)
    plans = [plan.make(built, access, "/staging", True, "x86_64", 7), pod.make(built, access, True, "x86_64", 7)]
    return {step.name for one in plans for step in (*one.prepare, *one.isolate, *(one.keep or ()))}


def attacks() -> set[str]:
    """file::test of everything in this folder but this file."""
    found = set()
    for path in HERE.glob("test_*.py"):
        if path.name != "test_promises.py":
            functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
            found |= {f"{path.name}::{one.name}" for one in functions if one.name.startswith("test_")}
    return found


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise.text[:40])
def test_a_promise_names_what_keeps_it_and_what_attacks_it_and_says_where_it_holds(promise: Promise) -> None:
    assert promise.kept_by and promise.attacked_by
    for name in promise.kept_by:
        assert name in steps() or (REPOSITORY / name).is_file(), f"no step and no file: {name}"
    assert set(promise.attacked_by) <= attacks()
    assert len(promise.levels) == len(Level) and all(promise.levels)


def test_every_attack_is_named_beside_its_promise() -> None:
    assert attacks() - {name for promise in promises() for name in promise.attacked_by} == set()


def test_every_step_that_holds_something_is_named() -> None:
    named = {name for promise in promises() for name in promise.kept_by}
    preparing = {
        "keep mounts private",
        "mount the zygote's proc",
        "mount a scratch for imports",
        "name the host",
        "hand over",
    }

    assert steps() - named == preparing


def test_the_table_of_layers_says_what_each_level_requires() -> None:
    rows = {row[0].strip("`"): row[1:4] for row in table("| layer |")}

    assert tuple(rows) == LAYERS
    for column, level in enumerate(Level):
        assert {layer for layer, cells in rows.items() if cells[column] == "required"} == REQUIRED[level]
