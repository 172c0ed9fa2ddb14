"""upload_file in a handler: the link that it gives at once works when the run has ended, and the email shows the picture."""

from __future__ import annotations

import json
import ssl
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from btrdbextras import commands

pytestmark = pytest.mark.road


def draws(**kwargs: Any) -> str:
    import struct
    import zlib
    from pathlib import Path

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + b"\xc0\x20\x20" * 8
    with Path("plot.png").open("wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)))
        out.write(chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b""))
    from btrdbextras.eventproc import upload_file

    return str(upload_file("plot.png", "fault plot.png"))  # no assert: pytest's rewriting would need pytest over there


def test_an_uploaded_picture_is_linked_shown_and_loaded_with_a_key(road: Any) -> None:
    tag = f"tag-{uuid.uuid4().hex[:8]}"
    road.register("draws", draws, [tag])
    road.publish([tag])
    message = road.mail_to("draws@example.com")
    text = message.get_body(("plain",)).get_content()
    link = text.split()[0]
    layout = road.stack.layout
    assert link.startswith(f"https://{layout.at('downloads')}/") and text.count(link) == 2
    shown = [part for part in message.walk() if part.get_content_type() == "image/png"]
    context = ssl.create_default_context(cafile=str(layout.certificates.ca))
    with httpx.Client(verify=context) as http:
        assert http.get(link).status_code == 401
        answer = http.get(link, headers={"Authorization": f"Bearer {layout.api_keys['bob']}"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == shown[0].get_payload(decode=True)


def test_the_command_line_saves_a_runs_files_and_a_link(
    road: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = f"tag-{uuid.uuid4().hex[:8]}"
    road.register("draws-again", draws, [tag])
    (ended,) = road.ended(road.publish([tag]), 1)

    assert commands.run(["download", ended.run_id, "--output", str(tmp_path / "a"), "--json"]) == 0
    (saved,) = json.loads(capsys.readouterr().out)
    assert saved == str(tmp_path / "a" / "fault plot.png")
    assert commands.run(["download", ended.text, "-o", str(tmp_path / "b")]) == 0
    assert Path(saved).read_bytes() == (tmp_path / "b" / "fault plot.png").read_bytes()
    assert Path(saved).read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert commands.run(["download", "draws-again", "-o", str(tmp_path / "a")]) == 2
    assert "is there already; --force writes over it" in capsys.readouterr().err
    assert commands.run(["download", "draws-again", "-o", str(tmp_path / "a"), "--force"]) == 0
    assert commands.run(["download", ended.text[:-32] + "0" * 32]) == 5
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["fault plot.png"]
