"""eventproc upload and download, over TLS, against the real ingress and the real downloads."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import btrdb
import pytest
from structlog.testing import capture_logs

from btrdbextras.commands import http
from callers import ApiKeys
from ctingress.accept import Desk
from ctingress.open import Limits
from ctingress.receive import make_app
from ctingress.work import Worker
from devstack.certificates import make_certificates
from devstack.keys import make_keys
from examples.make_comtrade import fault_archive
from ledger import Ledger
from objectstore import ObjectStore
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.btrdb_server import Running, start

from .conftest import Say, served

MIB = 1 << 20
LIMITS = Limits(1000, 1 << 28, 200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("btrdb"))
    yield running
    running.server.stop()


@pytest.fixture
def ingress(
    tmp_path: Path, server: Running, ledger: Ledger, say: Say, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Say]:
    """alice's eventproc, with an ingress that works in the background, as the service does."""
    tls = make_certificates(tmp_path / "tls", "127.0.0.1")
    bundle = tmp_path / "both.pem"
    bundle.write_bytes(tls.ca.read_bytes() + server.settings.ca.read_bytes())
    make_keys({"bob": ()}, tmp_path / "keys.json")
    entries = [{"sha256": hashlib.sha256(server.key.encode()).hexdigest(), "user": "alice", "roles": []}]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": entries}))
    for name, value in (
        ("BTRDB_CA_BUNDLE", str(bundle)), ("BTRDB_ENDPOINTS", server.endpoint), ("BTRDB_API_KEY", server.key),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics(("py3.11",), 1), 1, 8 * MIB)
    due, over = threading.Event(), threading.Event()
    keep = ObjectStore(f"file://{tmp_path / 'archives'}")
    desk = Desk(ledger, ApiKeys(tmp_path / "keys.json"), keep, LIMITS, max_upload=4 * MIB, wake=due.set)

    def connect(key: str) -> Any:
        return btrdb.connect(server.endpoint, apikey=key)

    worker = Worker(ledger, keep, broker.producer(), connect, limits=LIMITS, largest_message=8 * MIB)

    def work() -> None:
        while due.wait() and not over.is_set():
            due.clear()
            while worker.turn():
                pass

    thread = threading.Thread(target=work)
    with capture_logs(), served(make_app(desk), tls) as url:
        thread.start()
        monkeypatch.setenv("EVENTPROC_INGRESS", url)
        yield say
        over.set()
        due.set()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "fault.zip"
    fault_archive(path)
    return path


def test_an_archive_is_uploaded_and_waited_for(ingress: Say, archive: Path) -> None:
    said = ingress("upload", str(archive), "--tags", "north,line-4", "--wait")

    assert said.code == 0, said.err
    first, *data_sets = said.out.splitlines()
    assert first.endswith(" fault.zip: published")
    assert data_sets and all(line.endswith(" read") for line in data_sets)


def test_scripts_get_the_ingress_answer_and_the_same_key_is_the_same_upload(ingress: Say, archive: Path) -> None:
    first = ingress("upload", str(archive), "--tags", "a", "--tags", "b", "--key", "one", "--json").json()
    again = ingress("upload", str(archive), "--tags", "a", "--tags", "b", "--key", "one", "--json").json()

    assert first["State"] in ("waiting", "working", "published")
    assert first["Tags"] == ["a", "b"]
    assert again["RequestID"] == first["RequestID"]


def test_a_cfg_and_its_dat_are_one_archive(ingress: Say, archive: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(archive) as packed:
        cfg = next(name for name in packed.namelist() if name.lower().endswith(".cfg"))
        dat = cfg[:-3] + ("DAT" if cfg[-3:].isupper() else "dat")
        (tmp_path / "f.cfg").write_bytes(packed.read(cfg))
        (tmp_path / "f.dat").write_bytes(packed.read(dat))

    said = ingress("upload", str(tmp_path / "f.cfg"), str(tmp_path / "f.dat"), "--wait", "--json")

    assert said.code == 0, said.err
    assert [(one["Name"], one["Success"]) for one in said.json()["DataSets"]] == [("/f.cfg", True)]


def test_what_is_no_archive_and_what_is_too_large_is_refused(ingress: Say, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("not a zip")
    (tmp_path / "large.zip").write_bytes(b"x" * (6 * MIB))

    said = ingress("upload", str(tmp_path / "text.zip"))
    assert said.code == 2
    assert "answers 422" in said.err
    said = ingress("upload", str(tmp_path / "large.zip"))
    assert said.code == 2
    assert "6291456 bytes; at most 4194304 are taken" in said.err


def test_who_may_not_upload_is_told(ingress: Say, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTRDB_API_KEY", "wrong")
    assert ingress("upload", str(archive)).code == 4
    monkeypatch.delenv("BTRDB_CA_BUNDLE")
    said = ingress("upload", str(archive))
    assert said.code == 3
    assert "set BTRDB_CA_BUNDLE" in said.err


def test_where_to_is_asked_for(say: Say, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTPROC_INGRESS", raising=False)
    said = say("upload", str(archive))
    assert said.code == 2
    assert "Give --ingress https://HOST:PORT or set the environment variable EVENTPROC_INGRESS" in said.err
    monkeypatch.setenv("BTRDB_ENDPOINTS", "a.example.com:4411")
    monkeypatch.setenv("BTRDB_API_KEY", "key")
    assert "should be an address with https://" in say("upload", str(archive), "--ingress", "http://a.example.com").err
    assert say("upload", str(archive), "--ingress", "https://127.0.0.1:9").code == 3


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=\"plot.png\"; filename*=UTF-8''St%C3%B6rung%201.png", "Störung 1.png"),
        ('attachment; filename="plot.png"', "plot.png"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", ".._.._etc_passwd"),
        ('attachment; filename=".."', ""),
        ("", ""),
    ],
)
def test_a_downloads_name_stays_in_its_folder(header: str, name: str) -> None:
    assert http._name(header) == name
