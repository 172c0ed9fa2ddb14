"""One upload is one archive: idempotency keys, and the same content again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from ctingress.accept import Desk
from ctingress.receive import make_app
from ctingress.work import Worker
from ledger import Ledger
from ledger.tables import ArchiveRow

from .conftest import DAT, Cfg
from .uploads import posted


def test_the_same_idempotency_key_gives_the_first_request_id(http: TestClient, archive: bytes, tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "upload-7"}
    first = http.post("/v1/archives", content=archive, headers=headers)
    again = http.post("/v1/archives", content=archive, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["RequestID"] == first.json()["RequestID"]
    assert len(list((tmp_path / "archives").iterdir())) == 1


def test_an_idempotency_key_belongs_to_one_content(http: TestClient, archive: bytes, cfg: Cfg) -> None:
    headers = {"Idempotency-Key": "upload-8"}
    http.post("/v1/archives", content=archive, headers=headers)
    files = [("a", ("f.cfg", cfg().encode())), ("b", ("f.dat", DAT))]
    answer = http.post("/v1/archives", files=files, headers=headers)
    assert answer.status_code == 422
    assert "was used for another upload" in answer.json()["detail"]


def test_an_idempotency_key_belongs_to_one_choice_of_tags(http: TestClient, archive: bytes) -> None:
    headers = {"Idempotency-Key": "upload-9"}
    http.post("/v1/archives", params={"tags": "a,b"}, content=archive, headers=headers)
    same = http.post("/v1/archives", params={"tags": "b,a"}, content=archive, headers=headers)
    other = http.post("/v1/archives", params={"tags": "c"}, content=archive, headers=headers)
    assert (same.status_code, other.status_code) == (200, 422)
    assert "another upload (archive.zip with tags a, b)" in other.json()["detail"]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"prefix": "west"}, {"prefix": "east"}, "(archive.zip with prefix west)"),
        ({}, {"prefix": "east"}, "(archive.zip with prefix none)"),
        ({"timezone": "+02:00"}, {}, "(archive.zip with timezone +02:00)"),
        ({"tags": "a", "prefix": "west"}, {"tags": "b"}, "(archive.zip with tags a, prefix west)"),
    ],
)
def test_an_idempotency_key_belongs_to_one_choice_of_parameters(
    http: TestClient, archive: bytes, first: dict[str, str], second: dict[str, str], why: str
) -> None:
    answers = [
        http.post("/v1/archives", params=query, content=archive, headers={"Idempotency-Key": "upload-10"})
        for query in (first, first, second)
    ]
    assert [answer.status_code for answer in answers] == [202, 200, 422]
    assert f"another upload {why}; take a new one" in answers[2].json()["detail"]


def test_by_a_setting_the_same_content_and_tags_are_the_same_upload(
    desk: Desk, keys: dict[str, str], archive: bytes
) -> None:
    app = make_app(dataclasses.replace(desk, once_by_digest=True))
    http = TestClient(app, headers={"Authorization": f"Bearer {keys['alice']}"})
    first, again, other = (posted(http, archive, tags=tags) for tags in ("a,b", "b,a", "c"))
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 202)
    assert again.json()["RequestID"] == first.json()["RequestID"] != other.json()["RequestID"]


@pytest.fixture
def by_digest(desk: Desk, keys: dict[str, str]) -> TestClient:
    """alice's client, of an ingress to which the same content is the same upload."""
    app = make_app(dataclasses.replace(desk, once_by_digest=True))
    return TestClient(app, headers={"Authorization": f"Bearer {keys['alice']}"})


def test_the_same_content_with_another_prefix_or_timezone_is_another_upload(
    by_digest: TestClient, archive: bytes
) -> None:
    queries: list[dict[str, str]] = [
        {}, {"tags": "a"}, {"prefix": "a"}, {"timezone": "+02:00"}, {"tags": "a", "prefix": "a"}, {"name": "b.zip"},
    ]  # fmt: skip
    answers = [posted(by_digest, archive, **query) for query in queries]
    assert [answer.status_code for answer in answers] == [202] * 5 + [200]
    assert [posted(by_digest, archive, **query).status_code for query in queries] == [200] * 6


def test_tags_of_any_length_make_a_digest_that_the_ledger_has_room_for(
    by_digest: TestClient, archive: bytes, ledger: Ledger
) -> None:
    long = [",".join(f"{n:03}" + last * 197 for n in range(100)) for last in "ab"]
    answers = [posted(by_digest, archive, tags=tags) for tags in (long[0], long[1], long[0])]
    assert [answer.status_code for answer in answers] == [202, 202, 200]
    with ledger.read() as session:
        longest = session.scalar(text("SELECT max(length(once)) FROM archive"))
    assert longest <= ArchiveRow.__table__.c.once.type.length  # type: ignore[attr-defined]


def test_an_archive_that_failed_can_be_uploaded_again(
    by_digest: TestClient, worker: Worker, archive: bytes, keys: dict[str, str]
) -> None:
    bobs = {"Authorization": f"Bearer {keys['bob']}"}
    first = by_digest.post("/v1/archives", content=archive, headers=bobs)
    assert worker.turn()
    assert by_digest.get(first.headers["location"], headers=bobs).json()["State"] == "failed"
    again = by_digest.post("/v1/archives", content=archive, headers=bobs)
    assert (again.status_code, again.json()["State"]) == (202, "waiting")
    assert again.json()["RequestID"] != first.json()["RequestID"]
