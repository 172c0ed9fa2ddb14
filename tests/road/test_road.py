"""The whole road, through real processes: what a user, a producer and an operator see."""

import hashlib
import os
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from btrdbextras.eventproc import deregister, hooks
from examples import handlers
from examples.make_comtrade import fault_archive
from schemas.records import Outcome

pytestmark = pytest.mark.road

ROOT = Path(__file__).resolve().parents[2]
FIELD_RECORDINGS = ROOT.parent / "shared" / "comtrade" / "field_recordings.zip"


def a_tag() -> str:
    return f"tag-{uuid.uuid4().hex[:8]}"


def ingest(archive: Path, tags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ctingress", str(archive), "--tags", tags]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_the_hooks_are_told(road: Any) -> None:
    assert hooks(road.connection()) == ["ctingress.on_complete"]


def test_an_archive_with_an_unreadable_pair_goes_all_the_way_to_its_emails(road: Any, tmp_path: Path) -> None:
    tag = a_tag()
    road.register("fault", handlers.fault_report, [tag, "never"])
    road.register("log", handlers.archive_log, [tag], user="bob")
    fault_archive(tmp_path / "fault.zip", broken_pair=True)

    done = ingest(tmp_path / "fault.zip", tag)

    assert done.returncode == 0, done.stderr
    report = road.mail_to("fault@example.com").get_body(("plain",)).get_content()
    assert "RMS primary" in report and "fault on" in report
    log = road.mail_to("log@example.com").get_body(("plain",)).get_content()
    assert "NOT READ" in log


@pytest.mark.skipif(not FIELD_RECORDINGS.exists(), reason="the real recordings are not on this machine")
def test_real_recordings_go_all_the_way_to_their_email(road: Any) -> None:
    tag = a_tag()
    road.register("field", handlers.archive_log, [tag])

    done = ingest(FIELD_RECORDINGS, tag)

    assert done.returncode == 0, done.stderr
    text = road.mail_to("field@example.com").get_body(("plain",)).get_content()
    assert "DFR2.cfg: " in text and "__MACOSX" in text


def test_an_event_meets_the_handlers_with_a_tag_in_common_and_those_without_tags(road: Any) -> None:
    tag, other = a_tag(), a_tag()

    def returns_nothing(**kwargs: Any) -> None:
        return None

    road.register("partly", returns_nothing, [tag, other])
    road.register("elsewhere", returns_nothing, [a_tag()])
    road.register("every", returns_nothing, [])
    try:
        with_tags = road.publish([tag, a_tag()])
        without = road.publish([], as_json=True)

        assert {run.handler_name for run in road.ended(with_tags, 2)} == {"partly", "every"}
        assert {run.handler_name for run in road.ended(without, 1)} == {"every"}
    finally:
        every = next(handler for handler in road.handlers() if handler.name == "every")
        assert deregister(road.connection(), every.id)


def test_a_handler_that_raises_is_mailed_with_the_lines_of_its_source(road: Any) -> None:
    tag = a_tag()

    def breaks(**kwargs: Any) -> float:
        print("about to divide")
        denominator = 0
        return 1 / denominator

    road.register("breaks", breaks, [tag])

    (run,) = road.ended(road.publish([tag]), 1)

    assert run.state == Outcome.FAILED
    text = road.mail_to("breaks@example.com").get_body(("plain",)).get_content()
    assert "ZeroDivisionError: division by zero" in text
    assert "return 1 / denominator" in text
    assert "about to divide" in text


def test_a_handler_registered_again_runs_in_its_new_version(road: Any) -> None:
    tag = a_tag()

    def first(**kwargs: Any) -> str:
        return "the first"

    def second(**kwargs: Any) -> str:
        return "the second"

    road.register("renewed", first, [tag])
    road.register("renewed", second, [tag])

    (run,) = road.ended(road.publish([tag]), 1)

    assert (run.text, run.handler_version) == ("the second", 1)


def test_a_handler_runs_as_the_user_who_registered_it(road: Any) -> None:
    tag = a_tag()

    def whose_key(btrdb: Any, **kwargs: Any) -> str:
        return hashlib.sha256(os.environ["BTRDB_API_KEY"].encode()).hexdigest()

    road.register("whose", whose_key, [tag], user="bob")

    (run,) = road.ended(road.publish([tag]), 1)

    assert run.owner == "bob"
    assert run.text == hashlib.sha256(road.stack.layout.api_keys["bob"].encode()).hexdigest()


def test_the_same_event_again_runs_nothing_again(road: Any) -> None:
    tag = a_tag()

    def once(**kwargs: Any) -> str:
        return "ran"

    road.register("once", once, [tag])
    request_id = road.publish([tag])
    road.ended(request_id, 1)
    road.register("late", once, [tag])

    road.publish([tag], RequestID=request_id)
    road.ended(road.publish([tag]), 2)  # comes after it, on whatever partition; both have been dispatched then

    assert [run.handler_name for run in road.runs(request_id)] == ["once"]


def test_each_station_tells_its_metrics_and_that_it_is_well(road: Any) -> None:
    for url in road.stack.layout.metrics_urls():
        assert b"eventproc_last_turn_age_seconds" in urllib.request.urlopen(url).read()
        for page in ("healthz", "readyz"):
            assert urllib.request.urlopen(url.replace("metrics", page)).status == 200


@pytest.mark.parametrize("process", ["dispatcher", "notifier", "registry", "btrdb", "mail", "executor", "kafka"])
def test_a_run_goes_on_to_its_one_email_when_a_process_is_killed_under_it(
    road: Any, process: str, tmp_path: Path
) -> None:
    tag = a_tag()

    def takes_a_while(**kwargs: Any) -> str:
        import time

        time.sleep(2)
        return "went on"

    road.wait_for(road.all_ready, "what was killed before to be well again")
    name = f"survives-{process}"
    road.register(name, takes_a_while, [tag])
    request_id = road.publish([tag])

    def running() -> bool:
        return any(run.state == "running" for run in road.runs(request_id))

    road.wait_for(running, "the run to start")

    road.kill(process)

    (run,) = road.ended(request_id, 1)
    assert (run.state, run.text) == (Outcome.SUCCEEDED, "went on")
    road.mail_to(f"{name}@example.com")
    assert len(road.mails_to(f"{name}@example.com")) == 1
