"""What users see of their runs and do with their handlers, through real processes: logs, retries, pause, replay, a refused key."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import uuid
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from btrdbextras import Connection
from btrdbextras.eventproc import follow, list_handlers, pause, register, rekey, replay, resume, run, runs

pytestmark = pytest.mark.road

HOOK = "ctingress.on_complete"


def a_tag() -> str:
    return f"tag-{uuid.uuid4().hex[:8]}"


def registered(conn: Any, name: str, function: Callable[..., Any], tags: Sequence[str], **options: Any) -> None:
    mail = f"{name}@example.com"
    with contextlib.redirect_stdout(io.StringIO()):
        register(conn, name, HOOK, mail, mail, tags=list(tags), **options)(function)


def run_of(road: Any, conn: Any, name: str, request_id: str) -> Any:
    """The handler's run for that event, once it is there, as the client tells it."""

    def look() -> Any:
        return next((one for one in runs(conn, name) if one.request_id == request_id), None)

    return road.wait_for(look, f"a run of {name}")


def text_of(mail: Any) -> str:
    return " ".join(mail.get_body(("plain",)).get_content().split())


def test_a_log_is_followed_while_its_run_is_going_on(road: Any) -> None:
    tag, conn = a_tag(), road.connection()

    def talks(**kwargs: Any) -> str:
        import time

        for number in range(4):
            print("step", number)
            time.sleep(1)
        return "done"

    registered(conn, "talks", talks, [tag])
    one = run_of(road, conn, "talks", road.publish([tag]))

    pieces = follow(conn, one)
    first = next(pieces)
    meanwhile = run(conn, one.id).run.state
    rest = "".join(pieces)

    whole = "".join(f"step {number}\n" for number in range(4))
    assert meanwhile == "running" and first.startswith("step 0\n") and first != whole
    assert first + rest == whole
    told = run(conn, one.id)
    assert (told.run.state, told.text, told.log) == ("succeeded", "done", whole) and told.peak_memory > 0


def test_a_run_that_fails_is_tried_again_as_asked_and_told_in_one_email(road: Any) -> None:
    tag, conn = a_tag(), road.connection()

    def fails(**kwargs: Any) -> None:
        raise ValueError("no IA in it")

    registered(conn, "stubborn", fails, [tag], retries=2, retry_delay=0.5)
    request_id = road.publish([tag])
    mail = road.mail_to("stubborn@example.com")

    (one,) = road.ended(request_id, 1)
    told = run(conn, one.run_id)
    assert [attempt.reason for attempt in told.attempts] == ["failed: ValueError: no IA in it"] * 3
    attempts: list[Any] = told.attempts
    for earlier, later in pairwise(attempts):
        assert (later.started_at - earlier.ended_at).total_seconds() >= 0.5
    assert text_of(mail).count("failed: ValueError: no IA in it") == 3
    assert len(road.mails_to("stubborn@example.com")) == 1


def test_a_paused_handler_runs_what_it_missed_when_it_is_resumed_and_replayed(road: Any) -> None:
    tag, conn = a_tag(), road.connection()

    def looks(**kwargs: Any) -> str:
        return "looked"

    registered(conn, "pausing", looks, [tag])
    registered(conn, "goes-on", looks, [tag])
    assert pause(conn, "pausing").paused
    missed = road.publish([tag])
    assert [one.handler_name for one in road.ended(missed, 1)] == ["goes-on"]
    resume(conn, "pausing")

    would = replay(conn, "pausing", since="1h", dry_run=True)
    assert [one.request_id for one in would] == [missed] and len(road.runs(missed)) == 1
    (made,) = replay(conn, "pausing", since="1h")

    assert {one.handler_name for one in road.ended(missed, 2)} == {"goes-on", "pausing"}
    assert run(conn, made.run_id).text == "looked"


def test_a_key_that_btrdb_refuses_pauses_its_handlers_until_another_is_sealed(road: Any) -> None:
    keys_file: Path = road.stack.layout.state / "keys.json"
    before = keys_file.read_text()
    old, new = uuid.uuid4().hex, uuid.uuid4().hex

    def let_in(key: str) -> Any:
        entry = {"sha256": hashlib.sha256(key.encode()).hexdigest(), "user": "carol", "roles": []}
        fresh = keys_file.with_suffix(".test")
        fresh.write_text(json.dumps({"keys": [*json.loads(before)["keys"], entry]}))
        fresh.replace(keys_file)
        return Connection(road.stack.layout.at("btrdb"), key)

    def looks(**kwargs: Any) -> str:
        return "looked"

    try:
        tag, other = a_tag(), a_tag()
        conn = let_in(old)
        registered(conn, "keyed", looks, [tag])
        registered(conn, "keyed-too", looks, [other])
        conn = let_in(new)  # the old one is known no more
        refused = road.publish([tag])

        mail = road.mail_to("keyed@example.com")
        assert mail["Subject"] == "[eventproc] BTrDB refuses your API key: your handlers are paused"
        assert "rekey(conn)" in text_of(mail)
        mine = [one for one in list_handlers(conn) if one.created_by == "carol"]
        assert {one.name: one.pause_reason for one in mine} == dict.fromkeys(
            ("keyed", "keyed-too"), "BTrDB refuses the API key"
        )
        (one,) = road.ended(refused, 1)
        with contextlib.redirect_stdout(io.StringIO()):
            resumed = rekey(conn)

        assert {handler.name for handler in resumed} == {"keyed", "keyed-too"}
        (again,) = road.ended(road.publish([other]), 1)
        (redone,) = replay(conn, "keyed", since="1h", only="failed")
        road.wait_for(lambda: run(conn, redone.run_id).run.state == "succeeded", "the replayed run")
        assert redone.replay_of == one.run_id and again.text == "looked"
        about_key = [mail for mail in road.mails_to("keyed@example.com") if "refuses" in mail["Subject"]]
        assert len(about_key) == 1 and not road.mails_to("keyed-too@example.com")[1:]
    finally:
        keys_file.with_suffix(".test").write_text(before)
        keys_file.with_suffix(".test").replace(keys_file)
