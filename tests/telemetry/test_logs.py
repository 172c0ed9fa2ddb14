"""Logs are JSON lines that carry their context and no secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from telemetry import logs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What setup() sets for the whole process is as before after the test."""
    root = logging.getLogger()
    handlers, level, hooks = list(root.handlers), root.level, (sys.excepthook, threading.excepthook)
    monkeypatch.delenv("EVENTPROC_LOG_LEVEL", raising=False)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_has_time_level_station_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("dispatcher")
    structlog.get_logger().info("dispatched", runs=3, tags=("a", "ü"))
    (line,) = _lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "station": "dispatcher", "event": "dispatched", "runs": 3, "tags": ["a", "ü"]}


def test_context_is_on_every_line_of_the_block_and_gone_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("executor")
    log = structlog.get_logger()
    with logs.bound(run_id="r1", handler="fault_report"):
        with logs.bound(request_id="q1"):
            log.info("inner")
        log.info("outer")
    log.info("after")
    inner, outer, after = _lines(capsys)
    assert (inner["run_id"], inner["handler"], inner["request_id"]) == ("r1", "fault_report", "q1")
    assert outer["run_id"] == "r1" and "request_id" not in outer
    assert "run_id" not in after


def test_context_is_of_its_own_thread(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("executor")
    with logs.bound(run_id="r1"):
        other = threading.Thread(target=lambda: structlog.get_logger().info("other"))
        other.start()
        other.join()
    assert "run_id" not in _lines(capsys)[0]


@pytest.mark.parametrize(
    "key",
    [
        "api_key",
        "apikey",
        "API_KEY",
        "token",
        "service_token",
        "password",
        "smtp_password",
        "seal_keys",
    ],
)
def test_the_value_of_a_secret_key_is_masked_at_any_depth(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("registry")
    structlog.get_logger().info("call", **{key: "s3cret"}, deep={"list": [{key: "s3cret"}]})
    text = capsys.readouterr().err
    assert "s3cret" not in text
    assert json.loads(text)["deep"] == {"list": [{key: "***"}]}


@pytest.mark.parametrize(
    "text",
    [
        "metadata authorization: Bearer s3cret.x-y_z~+/=",
        "bearer s3cret",
        "api_key=s3cret, next",
        "password: s3cret",
        "postgresql+psycopg://eventproc:s3cret@db.example.com/ledger",
    ],
)
def test_secrets_within_texts_are_masked(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("registry")
    log = structlog.get_logger()
    log.info(text)
    log.info("call", detail=text, error=RuntimeError(text), parts=[text])
    logging.getLogger("sqlalchemy.engine").warning("said %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("broke")
    written = capsys.readouterr().err
    assert "s3cret" not in written and "***" in written
    assert len([json.loads(line) for line in written.splitlines()]) == 4


def test_what_is_no_secret_stays(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("registry")
    structlog.get_logger().info(
        "at 12:30", key="DataSets", token_file="/run/token", password=None, url="https://example.com:4411/x"
    )
    (line,) = _lines(capsys)
    assert (line["key"], line["token_file"], line["password"]) == ("DataSets", "/run/token", None)
    assert (line["event"], line["url"]) == ("at 12:30", "https://example.com:4411/x")


def test_libraries_are_heard_from_warning_up_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("dispatcher")
    logging.getLogger("kafka.client").info("chatter")
    logging.getLogger("kafka.client").warning("node %s is away", 1)
    (line,) = _lines(capsys)
    assert (line["event"], line["logger"], line["station"], line["level"]) == (
        "node 1 is away",
        "kafka.client",
        "dispatcher",
        "warning",
    )


def test_the_level_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVENTPROC_LOG_LEVEL", "warning")
    logs.setup("dispatcher")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in _lines(capsys)] == ["loud"]


def test_an_unknown_level_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTPROC_LOG_LEVEL", "chatty")
    with pytest.raises(ValueError, match=r"EVENTPROC_LOG_LEVEL.*CHATTY.*INFO"):
        logs.setup("dispatcher")


def test_what_stops_the_process_or_a_thread_is_a_line_too() -> None:
    program = (
        "import threading\nfrom telemetry import logs\nlogs.setup('notifier')\n"
        "t = threading.Thread(target=lambda: 1 / 0, name='sender')\nt.start()\nt.join()\nraise ValueError('token=s3cret')"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    of_thread, of_main = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert of_thread["thread"] == "sender" and "ZeroDivisionError" in of_thread["exception"]
    assert of_main["thread"] == "MainThread" and of_main["exception"].endswith("ValueError: token=***")
