"""Files of a run -> the object store: what is kept, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from executor.keep import Keeper
from executor.sandbox.job import CollectedUpload
from objectstore import ObjectStore
from schemas.errors import TryLater
from schemas.records import Upload, stored_name

CODE = "a" * 32


def at_once(work: Callable[[], None]) -> None:
    work()


def collected(tmp_path: Path, name: str = "plot.png") -> CollectedUpload:
    path = tmp_path / "spooled"
    path.write_bytes(b"picture")
    return CollectedUpload(CODE, name, 7, path)


def test_files_are_kept_under_the_runs_id_and_leave_the_spool(tmp_path: Path) -> None:
    store = ObjectStore(f"file://{tmp_path / 'files'}")
    upload = collected(tmp_path)
    kept, note = Keeper(store).keep("run-1", [upload], at_once)
    assert (kept, note) == ((Upload(CODE, "plot.png", 7),), "")
    assert b"".join(store.chunks(stored_name("run-1", CODE))) == b"picture"
    assert upload.path is not None and not upload.path.exists()


def test_a_storage_that_stays_away_costs_the_file_and_not_the_run(tmp_path: Path) -> None:
    def gives_up(work: Callable[[], None]) -> None:
        raise TryLater("the storage is away")

    upload = collected(tmp_path)
    kept, note = Keeper(ObjectStore(f"file://{tmp_path}")).keep("run-1", [upload], gives_up)
    assert kept == ()
    assert note == "eventproc: upload 'plot.png' could not be kept: the storage is away\n"
    assert upload.path is not None and not upload.path.exists()


def test_without_a_storage_the_log_says_that_the_file_was_not_kept(tmp_path: Path) -> None:
    kept, note = Keeper(None).keep("run-1", [CollectedUpload(CODE, "plot.png", 7, None)], at_once)
    assert kept == ()
    assert "was not kept: this platform has no storage for files" in note
