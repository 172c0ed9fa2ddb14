"""Files by name, in a folder and in fsspec's memory, which stands for any other storage."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from objectstore import ObjectStore
from schemas.errors import TryLater


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return ObjectStore(f"memory://{uuid.uuid4().hex}/files")
    return ObjectStore(f"file://{tmp_path / 'deep' / 'files'}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(bytes(range(256)) * 4000)
    return path


def test_what_was_put_is_read_again_whole_and_in_portions(store: ObjectStore, file: Path, tmp_path: Path) -> None:
    store.put(file, "a.b")
    store.get("a.b", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    portions = list(store.chunks("a.b", 100_000))
    assert max(map(len, portions)) <= 100_000
    assert b"".join(portions) == file.read_bytes()


def test_what_was_removed_is_gone_and_removing_it_again_is_no_error(
    store: ObjectStore, file: Path, tmp_path: Path
) -> None:
    store.put(file, "a")
    store.remove("a")
    store.remove("a")
    with pytest.raises(FileNotFoundError):
        store.get("a", tmp_path / "again")
    with pytest.raises(FileNotFoundError):
        next(store.chunks("a"))


def test_a_storage_that_is_away_is_tried_later(tmp_path: Path, file: Path) -> None:
    (tmp_path / "no-folder").write_text("a file where the folder should be")
    store = ObjectStore(f"file://{tmp_path / 'no-folder'}")
    with pytest.raises(TryLater, match="no-folder"):
        store.put(file, "a")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ValueError, match="nosuch"):
        ObjectStore("nosuch://bucket/files")
