"""An archive over HTTP goes the whole road, also when the ingress dies in the middle."""

from __future__ import annotations

import ssl
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples import handlers
from examples.make_comtrade import fault_archive

pytestmark = pytest.mark.road


def ingress(road: Any, user: str = "alice") -> httpx.Client:
    layout = road.stack.layout
    return httpx.Client(
        base_url=f"https://{layout.at('ingress')}",
        headers={"Authorization": f"Bearer {layout.api_keys[user]}"},
        verify=ssl.create_default_context(cafile=str(layout.certificates.ca)),
        timeout=60.0,
    )


def test_an_upload_survives_a_kill_right_after_its_answer_and_is_published_once(road: Any, tmp_path: Path) -> None:
    tag = f"tag-{uuid.uuid4().hex[:8]}"
    road.register("uploaded", handlers.archive_log, [tag])
    fault_archive(tmp_path / "fault.zip")
    with ingress(road) as http:
        body = (tmp_path / "fault.zip").read_bytes()
        answer = http.post("/v1/archives", params={"tags": tag, "name": "fault.zip"}, content=body)
        assert answer.status_code == 202, answer.text
        road.kill("ctingress")

        def state() -> Any:
            try:
                found = http.get(answer.headers["location"]).json()
            except httpx.TransportError:
                return None  # it is being started again
            return found if found["State"] in ("published", "failed") else None

        found = road.wait_for(state, "the archive to be published")
    assert (found["State"], found["Error"]) == ("published", "")
    assert [run.handler_name for run in road.ended(found["RequestID"], 1)] == ["uploaded"]
    assert "fault.zip" in road.mail_to("uploaded@example.com")["Subject"]
    assert len(road.mails_to("uploaded@example.com")) == 1
