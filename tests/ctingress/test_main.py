"""python -m ctingress, as people call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from ctingress.__main__ import _ingest, _pack
from ctingress.ingest import Ingested, Options
from ctingress.pack import Packed
from ctingress.refuse import BadArchive
from ctingress.settings import IngressSettings
from schemas.encoding import decode
from schemas.topics import topics
from tests.btrdb_server import Running

from .conftest import DAT, Cfg, MakeZip

HOOK = "ctingress.on_complete"
MIB = 1 << 20


@pytest.fixture
def command(server: Running, tmp_path: Path) -> Any:
    """python -m ctingress with an environment of its own."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"], "BTRDB_ENDPOINTS": server.endpoint, "BTRDB_API_KEY": server.key,
            "BTRDB_CA_BUNDLE": str(server.settings.ca), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", **environment,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "ctingress", *arguments], env=env, capture_output=True, text=True, timeout=120
        )

    return call


def test_the_command_says_what_is_wrong_with_how_it_was_called(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"x")

    assert command().returncode == 2
    zone = command(str(path), "--timezone", "Mars/Olympus")
    assert zone.returncode == 2 and "Mars/Olympus" in zone.stderr
    request = command(str(path), "--request-id", "7")
    assert request.returncode == 2 and "'7' is no UUID" in request.stderr
    for wrong, why in ((path, "a.zip: is no archive"), (tmp_path / "none.zip", "none.zip: there is no such file")):
        bad = command(str(wrong))
        assert bad.returncode == 1 and why in bad.stderr and "nothing was written or published" in bad.stderr
        assert len(bad.stderr.splitlines()) == 1, "one reason, without libraries' chatter, whether Kafka answers or not"


def test_the_command_says_in_one_line_that_no_kafka_answers(command: Any, make_zip: MakeZip, cfg: Cfg) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT})

    away = command(str(path), EVENTPROC_KAFKA_REQUEST_TIMEOUT_MS="1000")

    assert away.returncode == 1 and "127.0.0.1:1" in away.stderr and "nothing was written or published" in away.stderr
    assert len(away.stderr.splitlines()) == 1


def test_the_command_takes_names_that_are_not_utf_8(command: Any, tmp_path: Path, cfg: Cfg) -> None:
    pair = [tmp_path / os.fsdecode(b"S\xfcd." + kind) for kind in (b"cfg", b"dat")]
    for path, content in zip(pair, (cfg().encode(), DAT), strict=True):
        path.write_bytes(content)

    away = command(*map(str, pair), EVENTPROC_KAFKA_REQUEST_TIMEOUT_MS="1000")
    alone = command(str(pair[0]))
    tags = command(str(pair[0]), "--tags", os.fsdecode(b"S\xfcd"))

    assert away.returncode == 1 and "Kafka" in away.stderr and len(away.stderr.splitlines()) == 1
    assert alone.returncode == 1 and "Süd.cfg: is one part of a recording" in alone.stderr
    assert tags.returncode == 2 and "is not in UTF-8" in tags.stderr


def test_the_command_says_in_one_line_that_btrdb_refuses_the_key(command: Any, make_zip: MakeZip, cfg: Cfg) -> None:
    refused = command(str(make_zip({"a.cfg": cfg(), "a.dat": DAT})), BTRDB_API_KEY="wrong")

    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert (
        "invalid api key (UNAUTHENTICATED); nothing was written" in refused.stderr and "BTRDB_API_KEY" in refused.stderr
    )


def test_the_command_publishes_to_a_real_kafka(
    command: Any, kafka_bootstrap: str, make_zip: MakeZip, cfg: Cfg, prefix: str
) -> None:
    from stream.kafka import KafkaBroker
    from stream.settings import StreamSettings

    real = KafkaBroker(StreamSettings(bootstrap_servers=kafka_bootstrap))
    real.admin().ensure_topics(topics(()), 1, 8 * MIB)
    consumer = real.consumer([HOOK], f"test-{os.getpid()}")
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT})
    given = "5a0f0f5c-0000-4000-8000-0000000000cd"

    ended = command(
        str(path),
        "--tags",
        "b, a,,a",
        "--prefix",
        prefix,
        "--request-id",
        given,
        KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", "what libraries log is not for people"
    assert "UTC ASSUMED" in ended.stdout and f"RequestID {given}" in ended.stdout
    found: list[dict[str, Any]] = []
    while not found:
        found += [decode(HOOK, m.value, m.headers) for m in consumer.poll(1.0, 100) if m.key == given.encode()]
    (event,) = found
    assert event["Tags"] == ["a", "b"]
    assert json.dumps(event)
    real.close()


def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    settings = IngressSettings(btrdb_endpoint="127.0.0.1:1")
    with pytest.raises(BadArchive, match=r"cannot be read: .*Input/output error"):
        _pack([Path("/proc/self/mem")], tmp_path, settings)


def test_a_connection_that_breaks_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as nobody:
        call: Any = nobody.unary_unary("/v5api.BTrDB/Info")

        def take(path: Path, options: Options) -> Ingested:
            call(b"", timeout=30)
            raise AssertionError("nobody should have answered")

        code = _ingest(Packed("a.zip", tmp_path / "a.zip", ()), Options(), take)
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("ctingress: BTrDB: failed to connect to all addresses")
    assert "no event was published" in said
