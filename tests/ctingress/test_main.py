"""What the command line says when an archive cannot be taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from ctingress.__main__ import _ingest, _pack
from ctingress.ingest import Ingested, Options
from ctingress.pack import Packed
from ctingress.refuse import BadArchive
from ctingress.settings import IngressSettings


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
