"""A folder into which files are dropped: each finished one is ingested once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import btrdb
import grpc
import pytest
from structlog.testing import capture_logs

from ctingress.describe import Unreadable
from ctingress.ingest import Ingested, Options
from ctingress.open import Limits, open_archive
from ctingress.watch import Watch, watch
from ctingress.write import NotWritten
from schemas.errors import TryLater
from tests.btrdb_server import start

from .conftest import DAT, Cfg, MakeZip
from .test_pack import a_tar

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
    does: Callable[[], Any] = lambda: None
    data_sets: tuple[Any, ...] = ()

    def __call__(self, path: Path, options: Options) -> Ingested:
        with open_archive(path, LIMITS):
            if self.raises is not None:
                raise self.raises
            self.does()
            self.options.append(options)
            return Ingested(options.request_id or "", self.data_sets)


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


def refused_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    running = start(tmp_path / "btrdb")
    monkeypatch.setenv("BTRDB_CA_BUNDLE", str(running.settings.ca))
    return lambda: btrdb.connect(running.endpoint, apikey="wrong")


def test_a_file_that_cannot_be_read_stays_is_told_once_and_stops_no_other(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    whole = make_zip({"a.cfg": cfg(), "a.dat": DAT})
    for name in ("a.zip", "b.zip"):
        shutil.copy(whole, folder / name)
    taken.does = Path("/proc/self/mem").read_bytes  # an error of the disk's, to all who read it from its beginning
    with capture_logs() as logs:
        assert settled(watcher, clock) == 0
        assert settled(watcher, clock) == 0
    reasons = {(line["file"].rpartition("/")[2], line["reason"]) for line in logs}
    assert reasons == {(name, "[Errno 5] Input/output error") for name in ("a.zip", "b.zip")}
    assert len(logs) == 2
    assert sorted(path.name for path in folder.glob("*.zip")) == ["a.zip", "b.zip"]

    taken.does = lambda: None
    assert settled(watcher, clock) == 2


def test_a_file_that_somebody_takes_away_stops_no_other(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    whole = make_zip({"a.cfg": cfg(), "a.dat": DAT})
    for name in ("a.zip", "b.zip"):
        shutil.copy(whole, folder / name)
    taken.does = lambda: (folder / "a.zip").unlink(missing_ok=True)
    assert settled(watcher, clock) == 1
    assert [path.name for path in (folder / "done").iterdir()] == ["b.zip"]


@pytest.mark.parametrize("changed", [False, True])
def test_what_cannot_be_moved_is_not_ingested_again_unless_it_changes(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, cfg: Cfg, changed: bool
) -> None:
    (folder / "bay").mkdir()
    (folder / "bay" / "a.cfg").write_text(cfg())
    (folder / "bay" / "a.dat").write_bytes(DAT)
    (folder / "done").rmdir()
    (folder / "done").write_text("a file where the folder should be")
    for _ in range(3):
        assert settled(watcher, clock) == 0
    assert len(taken.options) == 1
    assert sorted(path.name for path in (folder / "bay").iterdir()) == ["a.cfg", "a.dat"]

    (folder / "done").unlink()
    if changed:
        (folder / "bay" / "a.dat").write_bytes(DAT + DAT)
    assert settled(watcher, clock) == 1
    assert len(taken.options) == (2 if changed else 1)
    assert sorted(path.name for path in (folder / "done" / "bay").iterdir()) == ["a.cfg", "a.dat"]


def test_a_broken_connection_to_btrdb_is_waited_for(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "a.zip")
    with grpc.insecure_channel("127.0.0.1:1") as nobody:
        call: Any = nobody.unary_unary("/v5api.BTrDB/Info")
        taken.does = lambda: call(b"", timeout=30)
        watcher.turn()
        clock.now += 11
        with pytest.raises(TryLater, match="BTrDB: failed to connect"):
            watcher.turn()
    assert (folder / "a.zip").exists()


def test_a_key_that_btrdb_refuses_fails_the_file_with_the_reason(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "a.zip")
    taken.does = refused_key(tmp_path, monkeypatch)
    assert settled(watcher, clock) == 1
    why = (folder / "failed" / "a.zip.error.txt").read_text()
    assert why == "BTrDB refuses the key (BTRDB_API_KEY): invalid api key\n"


def test_names_that_are_not_utf_8_are_taken(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    old = [os.fsdecode(name) for name in (b"St\xf6rung 1.cfg", b"St\xf6rung 1.dat", b"St\xf6rung 2.zip", b"\xf6.pdf")]
    (folder / old[0]).write_text(cfg())
    (folder / old[1]).write_bytes(DAT)
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / old[2])
    (folder / old[3]).write_bytes(b"x")
    assert settled(watcher, clock) == 2
    assert [o.file_name for o in taken.options] == ["Störung 2.zip", "Störung 1.cfg"]
    assert sorted(path.name for path in (folder / "done").iterdir()) == sorted(old[:3])

    (folder / old[2]).write_bytes(b"nonsense")
    assert settled(watcher, clock) == 1
    assert "Störung 2.zip: is no archive" in (folder / "failed" / (old[2] + ".error.txt")).read_text()


@pytest.mark.parametrize("kind", ["hdr", "inf"])
def test_an_empty_text_beside_a_recording_is_no_reason_to_wait(
    folder: Path, watcher: Watch, clock: Clock, cfg: Cfg, kind: str
) -> None:
    (folder / "a.cfg").write_text(cfg())
    (folder / "a.dat").write_bytes(DAT)
    (folder / f"a.{kind}").touch()
    assert settled(watcher, clock) == 1
    assert len(list((folder / "done").iterdir())) == 3


@pytest.mark.parametrize("name", ["a.zip", "a.dat"])
def test_an_empty_file_is_waited_for_and_fails_when_nothing_comes(
    folder: Path, watcher: Watch, clock: Clock, cfg: Cfg, name: str
) -> None:
    if name == "a.dat":
        (folder / "a.cfg").write_text(cfg())
    (folder / name).touch()
    assert settled(watcher, clock) == 0
    assert settled(watcher, clock, by=101) == 1
    assert "is empty" in (folder / "failed" / f"{name}.error.txt").read_text()


def test_an_archive_of_which_nothing_could_be_read_fails_with_the_reasons(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "a.zip")
    taken.data_sets = (Unreadable("/a.cfg", "line 1"), Unreadable("/b.cfg", "line 2"))
    assert settled(watcher, clock) == 1
    why = (folder / "failed" / "a.zip.error.txt").read_text()
    assert "nothing in it could be read" in why
    assert "/a.cfg: line 1\n/b.cfg: line 2\n" in why


def test_an_archive_of_which_something_could_be_read_is_done_and_the_rest_told(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, make_zip: MakeZip, cfg: Cfg
) -> None:
    shutil.copy(make_zip({"a.cfg": cfg(), "a.dat": DAT}), folder / "a.zip")
    taken.data_sets = (Unreadable("/a.cfg", "line 1"), "described")
    with capture_logs() as logs:
        assert settled(watcher, clock) == 1
    assert (folder / "done" / "a.zip").exists()
    assert [(line["data_sets"], line["not_read"]) for line in logs] == [(1, {"/a.cfg": "line 1"})]


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar.xz", "tar.bz2", "tar"])
def test_every_kind_of_tar_is_taken(
    folder: Path, watcher: Watch, clock: Clock, taken: Taken, cfg: Cfg, ending: str
) -> None:
    mode = {"tgz": "w:gz", "tar": "w"}.get(ending, "w:" + ending.removeprefix("tar."))
    (folder / f"a.{ending}").write_bytes(a_tar({"a.cfg": cfg().encode(), "a.dat": DAT}, mode))
    assert settled(watcher, clock) == 1
    assert [o.file_name for o in taken.options] == [f"a.{ending}"]


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
