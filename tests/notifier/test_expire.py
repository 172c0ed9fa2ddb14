"""Files of handlers that are too old go, whoever serves them."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger.files import file_of
from ledger.results import close
from ledger.rules import MailRules
from ledger.settings import KeepSettings
from notifier.expire import AT_ONCE, expire, keep_expiring
from objectstore import ObjectStore
from schemas.errors import TryLater
from schemas.records import Upload, stored_name

from .conftest import Book

DAY_S = 86_400.0
AGE_S = 30 * DAY_S
NEVER = threading.Event()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path / 'files'}")


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "files").iterdir())


def a_run_with_files(book: Book, store: ObjectStore, tmp_path: Path, count: int) -> list[str]:
    """Their names in the store, oldest first; they are new."""
    result = book.claimed()
    codes = [f"{number:032x}" for number in range(count)]
    uploads = tuple(Upload(code, "a.csv", 3) for code in codes)
    with book.ledger.write() as session:
        close(session, dataclasses.replace(result, uploads=uploads), MailRules())
    (tmp_path / "one").write_bytes(b"abc")
    names = [stored_name(result.run_id, code) for code in codes]
    for name in names:
        store.put(tmp_path / "one", name)
    return names


def set_back(book: Book, days: float, *codes: str) -> None:
    with book.ledger.write() as session:
        for code in codes:
            session.execute(
                text("UPDATE file SET created_at_ms = created_at_ms - :ms WHERE code = :code"),
                {"ms": int(days * DAY_S * 1000), "code": code},
            )


def test_what_is_too_old_goes_and_its_row_stays(book: Book, store: ObjectStore, tmp_path: Path) -> None:
    _, young = a_run_with_files(book, store, tmp_path, 2)
    old_code = f"{0:032x}"
    set_back(book, 31, old_code)

    assert expire(book.ledger, store, AGE_S, NEVER) == 1
    assert expire(book.ledger, store, AGE_S, NEVER) == 0

    assert kept(tmp_path) == [young]
    with book.ledger.read() as session:
        row = file_of(session, old_code)
    assert row is not None and row.removed


def test_one_who_is_told_to_end_stops_between_two_batches(book: Book, store: ObjectStore, tmp_path: Path) -> None:
    names = a_run_with_files(book, store, tmp_path, AT_ONCE + 5)
    set_back(book, 31, *(f"{number:032x}" for number in range(len(names))))
    told = threading.Event()

    class Tells(ObjectStore):
        def remove(self, name: str) -> None:
            told.set()
            super().remove(name)

    assert expire(book.ledger, Tells(f"file://{tmp_path / 'files'}"), AGE_S, told) == AT_ONCE
    assert len(kept(tmp_path)) == 5


def test_a_storage_that_is_away_is_tried_again_and_nothing_is_noted_as_removed_before(
    book: Book, store: ObjectStore, tmp_path: Path
) -> None:
    a_run_with_files(book, store, tmp_path, 1)
    set_back(book, 31, f"{0:032x}")
    stop, refusals = threading.Event(), [1]

    class ComesBack(ObjectStore):
        def remove(self, name: str) -> None:
            if refusals:
                refusals.pop()
                raise TryLater("the storage is away")
            super().remove(name)
            stop.set()

    keep_expiring(book.ledger, ComesBack(f"file://{tmp_path / 'files'}"), AGE_S, 0.01, stop)

    assert kept(tmp_path) == []


@pytest.mark.parametrize(("days", "age_s"), [("30", AGE_S), ("0", None), ("0.5", DAY_S / 2)])
def test_how_long_they_are_kept_is_a_setting_and_nought_is_for_ever(
    monkeypatch: pytest.MonkeyPatch, days: str, age_s: float | None
) -> None:
    monkeypatch.setenv("EVENTPROC_KEEP_FILES_DAYS", days)
    assert KeepSettings().files_s() == age_s
