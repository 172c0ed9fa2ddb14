"""Archives over HTTP: what is taken, what is refused, and the page that says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ctingress.work import Worker
from stream.memory import MemoryBroker

from .conftest import DAT, Cfg, MakeZip
from .test_pack import a_tar
from .uploads import MIB, events, posted


def test_an_upload_is_answered_at_once_and_published_in_the_background(
    http: TestClient, worker: Worker, broker: MemoryBroker, archive: bytes, tmp_path: Path
) -> None:
    answer = posted(http, archive, tags="north, line-4", name="fault.zip")
    state = answer.json()
    assert (answer.status_code, state["State"], state["File"]) == (202, "waiting", "fault.zip")
    assert answer.headers["location"] == f"/v1/archives/{state['RequestID']}"
    assert {d["Success"] for d in state["DataSets"]} == {None}
    assert events(broker) == []
    assert worker.turn() is True
    (event,) = events(broker)
    assert (event["RequestID"], event["Tags"], event["File"]) == (state["RequestID"], ["line-4", "north"], "fault.zip")
    assert event["SubmittedAt"] == state["SubmittedAt"]
    after = http.get(answer.headers["location"]).json()
    assert after["State"] == "published"
    assert [d["Name"] for d in after["DataSets"]] == [d["Name"] for d in event["DataSets"]]
    assert {d["Success"] for d in after["DataSets"]} == {True}
    assert list((tmp_path / "archives").iterdir()) == []
    assert worker.turn() is False


def test_the_data_is_written_under_the_uploaders_key(
    http: TestClient, worker: Worker, broker: MemoryBroker, archive: bytes, keys: dict[str, str]
) -> None:
    bobs = {"Authorization": f"Bearer {keys['bob']}"}
    answer = http.post("/v1/archives", content=archive, headers=bobs)
    assert answer.status_code == 202
    worker.turn()
    state = http.get(answer.headers["location"], headers=bobs).json()
    assert state["State"] == "failed"
    assert state["Error"] == "BTrDB refuses the uploader's key: invalid api key"
    assert events(broker) == []


def test_curls_own_content_type_is_no_form(http: TestClient, archive: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http.post("/v1/archives", content=archive, headers=headers)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("field", ["file", "anything"])
def test_a_form_file_is_taken_under_its_own_name(http: TestClient, archive: bytes, field: str) -> None:
    answer = http.post("/v1/archives", files={field: ("Störfall 1.zip", archive)})
    assert (answer.status_code, answer.json()["File"]) == (202, "Störfall 1.zip")


def test_a_cfg_and_its_dat_are_taken_as_two_form_files(http: TestClient, cfg: Cfg) -> None:
    answer = http.post("/v1/archives", files=[("a", ("f.cfg", cfg().encode())), ("b", ("f.dat", DAT))])
    assert answer.status_code == 202
    assert [d["Name"] for d in answer.json()["DataSets"]] == ["/f.cfg"]


@pytest.mark.parametrize(
    ("kind", "name", "called", "data_set"),
    [
        ("cff", "", "archive.cff", "/archive.cff"),
        ("cff", "fault.cff", "fault.cff", "/fault.cff"),
        ("zip", "fault.zic", "fault.zic", "/f.cfg"),
        ("zip", "", "archive.zip", "/f.cfg"),
        ("tar", "fault.tar.gz", "fault.tar.gz", "/f.cfg"),
        ("tar", "", "archive.tar", "/f.cfg"),
    ],
)
def test_every_kind_of_archive_is_taken_as_the_body_with_a_name_and_without(
    http: TestClient, cfg: Cfg, make_zip: MakeZip, kind: str, name: str, called: str, data_set: str
) -> None:
    members = {"./f.cfg": cfg().encode(), "./f.dat": DAT}
    body = {
        "cff": f"--- file type: CFG ---\r\n{cfg()}--- file type: DAT ASCII ---\r\n".encode() + DAT,
        "zip": make_zip(members).read_bytes(),
        "tar": a_tar(members),
    }[kind]
    answer = http.post("/v1/archives", params={"name": name} if name else {}, content=body)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["File"], [d["Name"] for d in answer.json()["DataSets"]]) == (called, [data_set])


def test_a_form_file_with_its_whole_path_is_taken_under_the_last_part_of_it(http: TestClient, cfg: Cfg) -> None:
    names = ("C:\\relay\\f.cfg", "relay\\f.dat")
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in zip(names, (cfg().encode(), DAT), strict=True)
    ]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post("/v1/archives", content=b"".join(parts) + b"--x--\r\n", headers=headers)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["File"], [d["Name"] for d in answer.json()["DataSets"]]) == ("f.cfg", ["/f.cfg"])


def test_tags_that_are_given_one_by_one_are_all_taken(http: TestClient, archive: bytes) -> None:
    answer = http.post("/v1/archives?tags=north&tags=south,line-4&tags=", content=archive)
    assert (answer.status_code, answer.json()["Tags"]) == (202, ["line-4", "north", "south"])


@pytest.mark.parametrize("name", ["name", "prefix", "timezone", "Idempotency-Key"])
def test_what_can_be_given_once_is_refused_when_it_is_given_twice(
    http: TestClient, archive: bytes, name: str, tmp_path: Path
) -> None:
    headers = [(name, "a"), (name, "b")] if name == "Idempotency-Key" else []
    query = "" if headers else f"?{name}=a&{name}=b"
    answer = http.post(f"/v1/archives{query}", content=archive, headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (400, f"{name}: is given 2 times; give it once")
    assert not (tmp_path / "archives").exists()


@pytest.mark.parametrize(("name", "value"), [("name", "a%00.zip"), ("prefix", "a%0Ab"), ("tags", "ok,a%00b")])
def test_control_characters_are_refused_with_the_name_of_the_parameter(
    http: TestClient, archive: bytes, name: str, value: str
) -> None:
    answer = http.post(f"/v1/archives?{name}={value}", content=archive)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{name}: has a control character (U+00")


def test_control_characters_in_a_form_files_name_are_refused(http: TestClient, archive: bytes) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a\x01.zip"\r\n\r\n' + archive + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post("/v1/archives", content=form, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "file: the file's name: has a control character (U+0001); leave it out"


def test_tags_as_a_field_of_the_form_are_refused_and_not_lost(http: TestClient, archive: bytes) -> None:
    answer = http.post("/v1/archives", data={"tags": "north"}, files={"file": ("a.zip", archive)})
    assert answer.status_code == 400
    assert "tags: a form has files alone; the rest stands in the address, as in ?tags=a,b" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "body", "code", "why"),
    [
        ({}, b"", 422, "the archive is empty; send a zip"),
        ({}, b"hello", 422, "is no archive, or a damaged one; send a zip"),
        ({}, b"x" * (4 * MIB + 1), 413, "the upload has 4194305 bytes; at most 4194304 are taken"),
        ({"timezone": "Mars/Olympus"}, b"x", 400, "timezone: "),
        ({"tags": ",".join(map(str, range(101)))}, b"x", 400, "tags: at most 100"),
        ({"name": "x" * 256}, b"x", 400, "name: has 256 characters; at most 255"),
        ({"tag": "north"}, b"x", 400, "tag: there is no such parameter; there are tags, name, prefix, timezone"),
    ],
)
def test_a_wrong_upload_is_refused_with_what_would_be_right(
    http: TestClient, query: dict[str, str], body: bytes, code: int, why: str, tmp_path: Path
) -> None:
    answer = posted(http, body, **query)
    assert answer.status_code == code
    assert answer.headers["content-type"] == "application/problem+json"
    assert why in answer.json()["detail"]
    assert not (tmp_path / "archives").exists()


def test_an_upload_without_a_length_is_cut_off_at_the_limit(http: TestClient) -> None:
    answer = http.post("/v1/archives", content=(b"x" * MIB for _ in range(20)))
    assert (answer.status_code, "more than 4194304 bytes" in answer.json()["detail"]) == (413, True)


def test_a_form_is_cut_off_at_the_limit(http: TestClient) -> None:
    answer = http.post("/v1/archives", files={"file": ("a.zip", b"x" * (4 * MIB))})
    assert answer.status_code == 413


@pytest.mark.parametrize("key", ["", "Bearer wrong", "Basic YWxpY2U6eA=="])
def test_who_has_no_known_key_is_told_how_to_give_one(http: TestClient, key: str, archive: bytes) -> None:
    answer = http.post("/v1/archives", content=archive, headers={"Authorization": key})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer <API key>" in answer.json()["detail"]


def test_an_archive_is_shown_to_its_uploader_and_to_admins_only(
    http: TestClient, keys: dict[str, str], archive: bytes
) -> None:
    where = posted(http, archive).headers["location"]
    codes = {
        user: http.get(where, headers={"Authorization": f"Bearer {keys[user]}"}).status_code
        for user in ("alice", "bob", "admin")
    }
    assert codes == {"alice": 200, "bob": 404, "admin": 200}
    assert http.get("/v1/archives/not-a-uuid").status_code == 400


def test_the_page_and_its_scripts_come_from_here(http: TestClient) -> None:
    page = http.get("/docs").text
    assert "https://" not in page and "http://" not in page
    assert http.get("/docs/static/swagger-ui-bundle.js").status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/archives", "/v1/archives/{request_id}"}


def referred(page: Any) -> Iterator[str]:
    """Every $ref in it."""
    if isinstance(page, dict):
        yield from [page["$ref"]] if "$ref" in page else []
        for value in page.values():
            yield from referred(value)
    elif isinstance(page, list):
        for value in page:
            yield from referred(value)


def test_the_openapi_document_is_whole_and_says_how_to_show_a_key(http: TestClient) -> None:
    page = http.get("/openapi.json").json()
    assert page["openapi"].startswith("3.1.")
    assert page["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer", "description": "an API key"}
    }
    for ref in referred(page):
        found = page
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
    operations = [operation for path in page["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == 2
    for operation in operations:
        assert operation["security"] == [{"key": []}]
        assert all(answer["description"] for answer in operation["responses"].values())
        for given in operation["parameters"]:
            assert given["in"] in ("query", "header", "path") and given["name"]
            assert given["schema"].keys() & {"type", "anyOf", "$ref"}
