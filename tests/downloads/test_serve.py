"""A link -> the file, for who has a key; nothing else is reached, nothing is shown."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from callers import ApiKeys
from devstack.keys import make_keys
from downloads.serve import Desk, make_app
from ledger import Ledger
from ledger.audit import Wanted, entries
from ledger.files import note_removed
from objectstore import ObjectStore
from schemas.records import stored_name
from tests.migrated import migrated

CODE = "0123456789abcdef" * 2
DAY_S = 86_400.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(migrated(tmp_path / "ledger.db"))
    yield opened
    opened.close()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return make_keys({"alice": (), "bob": (), "admin": ("admin",)}, tmp_path / "keys.json")


@pytest.fixture
def desk(tmp_path: Path, ledger: Ledger, keys: dict[str, str]) -> Desk:
    store = ObjectStore(f"file://{tmp_path / 'files'}")
    return Desk(ledger, ApiKeys(tmp_path / "keys.json"), store, owner_only=False, max_age_s=30 * DAY_S)


@pytest.fixture
def put(tmp_path: Path, desk: Desk) -> Callable[..., None]:
    """Stores a file of alice's, as an executor and the notifier do."""

    def make(name: str = "plot.png", content: bytes = b"content", code: str = CODE) -> None:
        (tmp_path / "one").write_bytes(content)
        desk.store.put(tmp_path / "one", stored_name("run-1", code))
        with desk.ledger.write() as session:
            session.execute(text("PRAGMA defer_foreign_keys = ON"))
            session.execute(text("PRAGMA ignore_check_constraints = ON"))
            session.execute(
                text(
                    "INSERT INTO handler (id, hook, name, owner, version, paused, created_by, created_at_ms, updated_by,"
                    " updated_at_ms) VALUES (1, 'h', 'n', 'alice', 0, 0, 'alice', 1, 'alice', 1) ON CONFLICT DO NOTHING"
                )
            )
            session.execute(
                text(
                    "INSERT INTO run (id, hook, request_id, handler_id, handler_version, owner, runtime, state, queued_at_ms,"
                    " not_before_ms, claims, lost, lost_together, hand_backs, text, log, log_truncated, uploads, started_at_ns,"
                    " ended_at_ns, cpu_s, peak_memory_bytes) VALUES ('run-1', 'h', 'r', 1, 0, 'alice', 'py', 'succeeded', 1, 1,"
                    " 1, 0, 0, 0, '', '', 0, '[]', 1, 1, 0, 0) ON CONFLICT DO NOTHING"
                )
            )
            session.execute(
                text(
                    "INSERT INTO file (code, run_id, owner, name, size, created_at_ms)"
                    " VALUES (:code, 'run-1', 'alice', :name, :size, CAST(strftime('%s','now') AS INTEGER) * 1000)"
                ),
                {"code": code, "name": name, "size": len(content)},
            )

    return make


@pytest.fixture
def http(desk: Desk) -> TestClient:
    return TestClient(make_app(desk))


def got(http: TestClient, key: str, code: str = CODE, method: str = "GET") -> httpx.Response:
    answer: httpx.Response = http.request(method, f"/{code}", headers={"Authorization": f"Bearer {key}"})
    return answer


def test_a_link_gives_the_file_under_its_own_name(
    http: TestClient, put: Callable[..., None], keys: dict[str, str]
) -> None:
    put("Störung 1.csv", b"a,b\n1,2\n")
    answer = got(http, keys["bob"])
    assert (answer.status_code, answer.content) == (200, b"a,b\n1,2\n")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-length"] == "8"
    assert "filename=\"St_rung 1.csv\"; filename*=UTF-8''St%C3%B6rung%201.csv" in answer.headers["content-disposition"]


def test_who_loads_a_file_is_in_the_audit_log_and_who_does_not_get_it_is_not(
    http: TestClient, put: Callable[..., None], keys: dict[str, str], desk: Desk
) -> None:
    put(content=b"abc")
    put(code="f" * 32)
    desk.store.remove(stored_name("run-1", "f" * 32))
    assert got(http, keys["bob"], method="HEAD").status_code == 200
    assert got(http, "wrong").status_code == 401
    assert got(http, keys["bob"], code="f" * 32).status_code == 404

    assert got(http, keys["bob"]).status_code == got(http, keys["admin"]).status_code == 200

    with desk.ledger.read() as session:
        found = entries(session, Wanted(), 10)[::-1]
    assert [(one.who, one.role, one.act, one.thing) for one in found] == [
        ("bob", "user", "download", CODE), ("admin", "admin", "download", CODE)
    ]  # fmt: skip
    assert found[0].detail == {"name": "plot.png", "owner": "alice", "run": "run-1", "size": 3}
    assert found[0].peer == "testclient"


def test_a_browser_is_asked_and_gives_the_key_as_password(
    http: TestClient, put: Callable[..., None], keys: dict[str, str]
) -> None:
    put()
    asked = http.get(f"/{CODE}")
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"].startswith("Basic realm=")
    basic = base64.b64encode(f"alice:{keys['alice']}".encode()).decode()
    assert http.get(f"/{CODE}", headers={"Authorization": f"Basic {basic}"}).content == b"content"


@pytest.mark.parametrize("given", ["Bearer wrong", "Basic !!!", "Basic OmJhZA==", "Digest x"])
def test_a_wrong_key_is_refused_before_anything_is_said_of_the_file(
    http: TestClient, put: Callable[..., None], given: str
) -> None:
    put()
    for code in (CODE, "f" * 32):
        answer = http.get(f"/{code}", headers={"Authorization": given})
        assert answer.status_code == 401
        assert "plot" not in answer.text


@pytest.mark.parametrize(
    "name", ["page.html", "page.htm", "drawing.svg", "x.xhtml", "x.js", "noending", "a.xml", "a.html.gz"]
)
def test_what_a_browser_would_run_is_bytes_to_be_saved(
    http: TestClient, put: Callable[..., None], keys: dict[str, str], name: str
) -> None:
    put(name, b"<script>alert(1)</script>")
    answer = got(http, keys["alice"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


@pytest.mark.parametrize("name", ['a"; filename="b.exe', "a\r\nSet-Cookie: x=1", "../../etc/passwd", "a\\b"])
def test_a_name_makes_no_header_and_no_path(
    http: TestClient, put: Callable[..., None], keys: dict[str, str], name: str
) -> None:
    put(name)
    answer = got(http, keys["alice"])
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    plain = answer.headers["content-disposition"].split("; filename*")[0]
    assert plain.count('"') == 2 and "/" not in plain and "\\" not in plain


@pytest.mark.parametrize("code", ["f" * 32, "keys.json", "..%2fkeys.json", CODE.upper(), "run-1." + CODE, CODE + "0"])
def test_nothing_but_a_code_in_the_ledger_is_reached(
    http: TestClient, put: Callable[..., None], keys: dict[str, str], code: str
) -> None:
    put()
    assert got(http, keys["admin"], code).status_code == 404


def test_by_a_setting_only_the_owner_and_admins_may_load_it(
    desk: Desk, put: Callable[..., None], keys: dict[str, str]
) -> None:
    put()
    http = TestClient(make_app(dataclasses.replace(desk, owner_only=True)))
    codes = {user: got(http, keys[user]).status_code for user in keys}
    assert codes == {"alice": 200, "bob": 403, "admin": 200}


def test_a_file_that_is_too_old_or_removed_is_said_to_be_gone(
    desk: Desk, http: TestClient, put: Callable[..., None], keys: dict[str, str]
) -> None:
    put()
    with desk.ledger.write() as session:
        session.execute(text("UPDATE file SET created_at_ms = created_at_ms - 31 * 86400000"))
    answer = got(http, keys["alice"])
    assert (answer.status_code, "kept for 30 days" in answer.text) == (410, True)
    for_ever = TestClient(make_app(dataclasses.replace(desk, max_age_s=None)))
    assert got(for_ever, keys["alice"]).status_code == 200
    with desk.ledger.write() as session:
        note_removed(session, [CODE])
    assert got(for_ever, keys["alice"]).status_code == 410


def test_a_file_that_the_storage_has_lost_is_not_found(
    desk: Desk, http: TestClient, put: Callable[..., None], keys: dict[str, str]
) -> None:
    put()
    desk.store.remove(stored_name("run-1", CODE))
    assert got(http, keys["alice"]).status_code == 404


def test_a_large_file_comes_whole_and_head_has_no_body(
    http: TestClient, put: Callable[..., None], keys: dict[str, str]
) -> None:
    content = bytes(range(256)) * 20_000
    put("data.h5", content)
    assert got(http, keys["alice"]).content == content
    head = got(http, keys["alice"], method="HEAD")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
