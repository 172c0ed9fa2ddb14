"""Archives over HTTP: what is answered at once, and what becomes of an upload in the background."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import btrdb
import httpx
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from callers import ApiKeys
from ctingress.accept import Desk
from ctingress.open import Limits
from ctingress.receive import make_app
from ctingress.serve import forget
from ctingress.work import Worker
from devstack.keys import make_keys
from examples.make_comtrade import fault_archive
from ledger import Ledger
from ledger.tables import ArchiveRow
from objectstore import ObjectStore
from schemas.encoding import decode
from schemas.errors import TryLater
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.btrdb_server import Running, start
from tests.migrated import migrated

from .conftest import DAT, Cfg, MakeZip
from .test_pack import a_tar

HOOK = "ctingress.on_complete"
LIMITS = Limits(1000, 1 << 28, 200)
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as env:
        running = start(tmp_path_factory.mktemp("btrdb"))
        env.setenv("BTRDB_CA_BUNDLE", str(running.settings.ca))
        yield running
        running.server.stop()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "fault.zip"
    fault_archive(path)
    return path.read_bytes()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics(("py3.11",), 1), 1, 8 * MIB)
    return broker


@pytest.fixture
def keys(tmp_path: Path, server: Running) -> dict[str, str]:
    """alice's key is BTrDB's, too; bob's is not."""
    made = make_keys({"bob": (), "admin": ("admin",)}, tmp_path / "keys.json")
    entries = json.loads((tmp_path / "keys.json").read_text())["keys"]
    entries.append({"sha256": hashlib.sha256(server.key.encode()).hexdigest(), "user": "alice", "roles": []})
    (tmp_path / "keys.json").write_text(json.dumps({"keys": entries}))
    return {**made, "alice": server.key}


@pytest.fixture
def desk(tmp_path: Path, ledger: Ledger, keys: dict[str, str]) -> Desk:
    keep = ObjectStore(f"file://{tmp_path / 'archives'}")
    return Desk(ledger, ApiKeys(tmp_path / "keys.json"), keep, LIMITS, max_upload=4 * MIB)


@pytest.fixture
def worker(ledger: Ledger, desk: Desk, broker: MemoryBroker, server: Running) -> Worker:
    return a_worker(ledger, desk, broker, server)


def a_worker(ledger: Ledger, desk: Desk, broker: MemoryBroker, server: Running, **changed: Any) -> Worker:
    def connect(key: str) -> Any:
        return btrdb.connect(server.endpoint, apikey=key)

    return Worker(ledger, desk.keep, broker.producer(), connect, limits=LIMITS, largest_message=8 * MIB, **changed)


@pytest.fixture
def http(desk: Desk, keys: dict[str, str]) -> TestClient:
    """alice's client."""
    return TestClient(make_app(desk), headers={"Authorization": f"Bearer {keys['alice']}"})


def posted(http: TestClient, body: bytes, **query: str) -> httpx.Response:
    headers = {"Content-Type": "application/zip"}
    answer: httpx.Response = http.post("/v1/archives", params=query, content=body, headers=headers)
    return answer


def events(broker: MemoryBroker) -> list[dict[str, Any]]:
    consumer = broker.consumer([HOOK], "test")
    found = consumer.poll(0.2, 100)
    consumer.close()
    return [decode(HOOK, message.value, message.headers) for message in found]


def due(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE archive SET not_before_ms = 0, lease_until_ms = 0"))


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


def test_tags_as_a_field_of_the_form_are_refused_and_not_lost(http: TestClient, archive: bytes) -> None:
    answer = http.post("/v1/archives", data={"tags": "north"}, files={"file": ("a.zip", archive)})
    assert answer.status_code == 400
    assert "tags: a form has files alone; the rest stands in the address, as in ?tags=a,b" in answer.json()["detail"]


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


def test_what_is_away_is_waited_for_and_the_upload_is_not_lost(
    http: TestClient, ledger: Ledger, desk: Desk, broker: MemoryBroker, server: Running, archive: bytes
) -> None:
    where = posted(http, archive).headers["location"]

    def away(key: str) -> Any:
        raise ConnectionError("nobody listens")

    gone = Worker(ledger, desk.keep, broker.producer(), away, limits=LIMITS, largest_message=8 * MIB)
    assert gone.turn()
    state = http.get(where).json()
    assert (state["State"], state["Error"]) == ("waiting", "BTrDB: nobody listens")
    due(ledger)
    assert a_worker(ledger, desk, broker, server).turn()
    assert http.get(where).json()["State"] == "published"
    assert len(events(broker)) == 1


def test_what_stays_away_is_given_up_with_the_reason(
    http: TestClient, ledger: Ledger, desk: Desk, broker: MemoryBroker, archive: bytes
) -> None:
    where = posted(http, archive).headers["location"]

    def away(key: str) -> Any:
        raise ConnectionError("nobody listens")

    worker = Worker(ledger, desk.keep, broker.producer(), away, limits=LIMITS, largest_message=8 * MIB, give_up_s=0.0)
    due(ledger)
    worker.turn()
    state = http.get(where).json()
    assert state["State"] == "failed"
    assert state["Error"].startswith("given up after 0 h: BTrDB: nobody listens")


def test_an_event_that_was_published_before_the_process_died_is_not_published_again(
    http: TestClient, worker: Worker, broker: MemoryBroker, ledger: Ledger, archive: bytes
) -> None:
    request_id = posted(http, archive).json()["RequestID"]
    with ledger.write() as session:
        session.execute(
            text(
                "INSERT INTO event (hook, request_id, subject, submitted_at, tags, body, matches, received_at_ms)"
                " VALUES (:hook, :id, '', '', '[]', '{}', '[]', 1)"
            ),
            {"hook": HOOK, "id": request_id},
        )
    assert worker.turn()
    assert http.get(f"/v1/archives/{request_id}").json()["State"] == "published"
    assert events(broker) == []


def test_an_upload_is_refused_for_a_while_when_the_ledger_is_away_and_leaves_nothing(
    http: TestClient, desk: Desk, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ledger.engine.BUSY_S", 0.2)
    with desk.ledger.engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        blocker = desk.ledger.engine.raw_connection()
        blocker.cursor().execute("BEGIN IMMEDIATE")
        answer = posted(http, archive)
        blocker.cursor().execute("ROLLBACK")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert list((tmp_path / "archives").iterdir()) == []


class LosesAnswers(Ledger):
    """A ledger that commits, and whose answer to the first few commits is lost on the way."""

    to_lose = 0

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        if self.to_lose:
            self.to_lose -= 1
            raise TryLater("ledger: server closed the connection unexpectedly")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "upload-11"}])
@pytest.mark.parametrize("lost", [1, 2])
def test_an_upload_whose_booking_was_not_answered_keeps_its_bytes(
    desk: Desk, keys: dict[str, str], archive: bytes, tmp_path: Path, lost: int, key: dict[str, str]
) -> None:
    ledger = LosesAnswers.open(migrated(tmp_path / "loses.db"), [Fernet.generate_key().decode()])
    assert isinstance(ledger, LosesAnswers)
    app = make_app(dataclasses.replace(desk, ledger=ledger))
    http = TestClient(app, headers={"Authorization": f"Bearer {keys['alice']}"})
    ledger.to_lose = lost

    answer = http.post("/v1/archives", content=archive, headers=key)

    assert answer.status_code == (202 if lost == 1 else 503)
    with ledger.read() as session:
        booked = list(session.scalars(text("SELECT stored FROM archive")))
    assert [path.name for path in (tmp_path / "archives").iterdir()] == booked
    assert len(booked) == 1
    ledger.close()


def test_an_upload_that_finds_no_room_on_the_disk_is_refused_for_a_while(
    http: TestClient, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    answer = posted(http, archive)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


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


def test_an_archive_that_ended_long_ago_goes_with_its_bytes(
    http: TestClient, worker: Worker, ledger: Ledger, desk: Desk, archive: bytes, keys: dict[str, str], tmp_path: Path
) -> None:
    failed = http.post("/v1/archives", content=archive, headers={"Authorization": f"Bearer {keys['bob']}"})
    assert worker.turn()
    waiting = posted(http, archive)
    with ledger.write() as session:
        session.execute(text("UPDATE archive SET created_at_ms = 0"))
        session.execute(text("UPDATE archive SET ended_at_ms = 0 WHERE ended_at_ms IS NOT NULL"))

    assert (forget(ledger, desk.keep, 86_400), forget(ledger, desk.keep, 86_400)) == (1, 0)

    admin = {"Authorization": f"Bearer {keys['admin']}"}
    assert http.get(failed.headers["location"], headers=admin).status_code == 404
    assert http.get(waiting.headers["location"]).json()["State"] == "waiting"
    assert [path.name for path in (tmp_path / "archives").iterdir()] == [f"{waiting.json()['RequestID']}.zip"]
