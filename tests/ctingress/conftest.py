"""CFG texts and archives, made from their parts; a BTrDB to write to."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.btrdb_server import Running, serving

from .uploads import archive, broker, desk, http, keys, worker

__all__ = ["archive", "broker", "desk", "http", "keys", "worker"]

ANALOG = "1,IA,A,Line 4,A,0.5,1,0,-32767,32767,1200,5,S"
STATUS = "1,TRIP,,Line 4,0"

Cfg = Callable[..., str]
MakeZip = Callable[..., Path]


def cfg_text(
    *,
    head: str = "North,Relay,1999",
    analogs: Sequence[str] = (ANALOG,),
    statuses: Sequence[str] = (STATUS,),
    frequency: str = "60",
    rates: Sequence[str] = ("1", "1000,3"),
    start: str = "10/06/2020,22:59:10.350000",
    trigger: str = "10/06/2020,22:59:10.351000",
    encoding: str = "ASCII",
    tail: Sequence[str] = ("1",),
) -> str:
    """A CFG file's text; every part may be replaced."""
    counts = f"{len(analogs) + len(statuses)},{len(analogs)}A,{len(statuses)}D"
    return "\r\n".join([head, counts, *analogs, *statuses, frequency, *rates, start, trigger, encoding, *tail]) + "\r\n"


DAT = b"1,0,10,0\r\n2,1000,20,1\r\n3,2000,30,0\r\n"


@pytest.fixture
def cfg() -> Cfg:
    """Makes CFG texts."""
    return cfg_text


@pytest.fixture
def make_zip(tmp_path: Path) -> MakeZip:
    """Makes an archive of members by name."""

    def make(members: Mapping[str, bytes | str], name: str = "a.zip") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return path

    return make


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The development server, in this process."""
    with serving(tmp_path_factory.mktemp("btrdb")) as running:
        yield running


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Each test has streams of its own."""
    return str(request.node.name)[:80].replace("/", "-")
