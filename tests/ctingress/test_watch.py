"""A folder into which files are dropped: each finished one is ingested once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ctingress.ingest import Ingested, Options
from ctingress.open import Limits, open_archive
from ctingress.watch import Watch, watch
from ctingress.write import NotWritten
from schemas.errors import TryLater

from .conftest import DAT, Cfg, MakeZip

LIMITS = Limits()


@dataclass
class Clock:
    """A clock that goes when told."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Taken:
    """Stands where ctingress.ingest stands: notes what it was given, or raises."""

    options: list[Options] = field(default_factory=list)
    raises: Exception | None = None

    def __call__(self, path: Path, options: Options) -> Ingested:
        with open_archive(path, LIMITS):
            if self.raises is not None:
                raise self.raises
            self.options.append(options)
            return Ingested(options.request_id or "", ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def watcher(folder: Path, taken: Taken, clock: Clock) -> Watch:
    return Watch(folder, Options(("north",)), taken, LIMITS, settle_s=10, lonely_s=100, clock=clock)


def settled(watcher: Watch, clock: Clock, by: float = 11.0) -> int:
    """Looks, lets time go by, looks again."""
    first = watcher.turn()
    clock.now += by
    return first + watcher.turn()


def test_a_finished_archive_is_ingested_once_and_moved(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "fault.zip")
    assert watcher.turn() == 0
    assert settled(watcher, clock) == 1
    assert settled(watcher, clock) == 0
    assert [(o.file_name, o.tags) for o in taken.options] == [("fault.zip", ("north",))]
    assert [p.name for p in (folder / "done").iterdir()] == ["fault.zip"]


def test_a_file_that_still_grows_is_waited_for(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    whole = make_zip({"a.cfg": cfg(), "a.dat": DAT}).read_bytes()
    target = folder / "fault.zip"
    target.write_bytes(whole[:50])
    assert watcher.turn() == 0
    clock.now += 9
    target.write_bytes(whole)
    assert watcher.turn() == 0
    clock.now += 9
    assert watcher.turn() == 0
    clock.now += 2
    assert watcher.turn() == 1
    assert len(taken.options) == 1


def test_a_cfg_waits_for_its_dat_and_they_go_together(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, cfg: Cfg
) -> None:
    (folder / "bay 1").mkdir()
    (folder / "bay 1" / "F1.CFG").write_text(cfg())
    assert settled(watcher, clock) == 0
    (folder / "bay 1" / "f1.dat").write_bytes(DAT)
    assert settled(watcher, clock) == 1
    assert taken.options[0].file_name == "F1.CFG"
    assert sorted(p.name for p in (folder / "done" / "bay 1").iterdir()) == ["F1.CFG", "f1.dat"]


def test_a_cfg_whose_dat_never_comes_fails_with_the_reason(
    folder: Path, watcher: Watch, clock: Clock, cfg: Cfg
) -> None:
    (folder / "a.cfg").write_text(cfg())
    assert settled(watcher, clock, by=101) == 1
    assert "the other never came" in (folder / "failed" / "a.cfg.error.txt").read_text()


def test_a_bad_archive_fails_with_the_reason_and_the_next_goes_on(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    (folder / "a.zip").write_bytes(b"nonsense")
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "b.zip")
    assert settled(watcher, clock) == 2
    assert "is no archive" in (folder / "failed" / "a.zip.error.txt").read_text()
    assert (folder / "failed" / "a.zip").read_bytes() == b"nonsense"
    assert [o.file_name for o in taken.options] == ["b.zip"]


@pytest.mark.parametrize("away", [TryLater("kafka is away"), NotWritten("BTrDB is away")])
def test_what_could_not_be_written_stays_and_is_tried_under_the_same_request_id(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg, away: Exception
) -> None:
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "fault.zip")
    seen: list[Any] = []
    taken.raises = away
    watcher.turn()
    clock.now += 11
    with pytest.raises(TryLater, match="is away"):
        watcher.turn()
    taken.raises = None
    assert watcher.turn() == 1
    (folder / "done" / "fault.zip").replace(folder / "fault.zip")  # as if the process had died before the move
    assert settled(watcher, clock) == 1
    seen = [o.request_id for o in taken.options]
    assert seen[0] == seen[1] != ""


def test_the_same_name_later_with_other_content_is_another_event(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    for station in ("North", "South"):
        shutil.copy(make_zip({"a.cfg": cfg(head=f"{station},Relay,1999"), "a.dat": DAT}), folder / "fault.zip")
        assert settled(watcher, clock) == 1
    assert len({o.request_id for o in taken.options}) == 2
    assert sorted(p.name for p in (folder / "done").iterdir()) == ["fault-2.zip", "fault.zip"]


def test_hidden_unfinished_and_foreign_files_are_left_alone(folder: Path, watcher: Watch, clock: Clock) -> None:
    for name in (".fault.zip", "fault.zip.part", "notes.pdf"):
        (folder / name).write_bytes(b"x")
    assert settled(watcher, clock) == 0
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [".fault.zip", "fault.zip.part", "notes.pdf"]


def test_it_goes_on_after_an_outage_with_longer_pauses() -> None:
    turns = iter([TryLater("away"), TryLater("away", after_s=60.0), None])
    pauses: list[float] = []

    def turn() -> int:
        outcome = next(turns)
        if outcome is not None:
            raise outcome
        return 0

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 4

    watch(turn, pause, 2.0)
    assert pauses == [2.0, 4.0, 60.0, 2.0]
