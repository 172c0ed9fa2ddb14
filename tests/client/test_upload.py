"""upload_file: the link in a handler, a warning outside, and what it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import btrdbextras.eventproc
import btrdbextras.eventproc.eventproc
from btrdbextras.eventproc import upload_file


@pytest.fixture
def queue() -> Iterator[dict[str, Any]]:
    queue = btrdbextras.eventproc._uploads
    queue.clear()
    yield queue
    queue.clear()


@pytest.fixture
def report(tmp_path: Path) -> str:
    file = tmp_path / "report.csv"
    file.write_text("1")
    return str(file)


def test_in_a_handler_it_queues_the_file_and_gives_its_link(
    monkeypatch: pytest.MonkeyPatch, queue: Any, report: Any
) -> None:
    monkeypatch.setenv("EXECUTOR_CONTEXT", "true")
    monkeypatch.setenv("DOWNLOADS_ENDPOINT", "files.example.com/download")

    link = upload_file(report, "fault report.csv")

    match = re.fullmatch(r"https://files\.example\.com/download/([0-9a-f]{32})", link or "")
    assert match
    assert queue == {match[1]: [os.path.realpath(report), "fault report.csv"]}


def test_the_file_is_found_from_another_folder_and_behind_a_link(
    monkeypatch: pytest.MonkeyPatch, queue: Any, report: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXECUTOR_CONTEXT", "true")
    (tmp_path / "newest.csv").symlink_to(report)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    upload_file("newest.csv", "a.csv")
    monkeypatch.chdir(tmp_path / "elsewhere")

    ((path, name),) = queue.values()
    assert (Path(path).read_text(), Path(path).is_symlink(), name) == ("1", False, "a.csv")


@pytest.mark.parametrize("nothing", ["", " "])
def test_without_a_name_it_has_the_files_own(
    monkeypatch: pytest.MonkeyPatch, queue: Any, report: str, nothing: str
) -> None:
    monkeypatch.setenv("EXECUTOR_CONTEXT", "true")

    upload_file(report, nothing)

    assert [name for _, name in queue.values()] == ["report.csv"]


def test_outside_a_handler_it_warns_and_gives_nothing(monkeypatch: pytest.MonkeyPatch, queue: Any, report: Any) -> None:
    monkeypatch.delenv("EXECUTOR_CONTEXT", raising=False)

    with pytest.warns(UserWarning, match="upload_file"):
        assert upload_file(report, "report.csv") is None

    assert queue == {}


def test_both_modules_hold_the_same_queue() -> None:
    assert btrdbextras.eventproc._uploads is btrdbextras.eventproc.eventproc._uploads


def test_arguments_that_are_no_text_are_type_errors(report: Any) -> None:
    with pytest.raises(TypeError, match="file "):
        upload_file(3, "name")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="file_name"):
        upload_file(report, None)  # type: ignore[arg-type]


def test_a_missing_file_and_a_long_name_are_value_errors(
    monkeypatch: pytest.MonkeyPatch, queue: Any, report: Any
) -> None:
    monkeypatch.setenv("EXECUTOR_CONTEXT", "true")
    with pytest.raises(ValueError, match="does not exist"):
        upload_file(report + "x", "name")
    with pytest.raises(ValueError, match="201"):
        upload_file(report, "n" * 201)
    assert upload_file(report, "n" * 200)
