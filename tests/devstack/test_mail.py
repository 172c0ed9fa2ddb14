"""The stack's mail server keeps what it takes."""

from __future__ import annotations

import email
import email.policy
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

from devstack.mail import Sink, readable

ROOT = Path(__file__).resolve().parents[2]


def _mail(subject: str = "Grüße", text: str = "Störung auf Leitung 7\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "eventproc@example.com", "alice@example.com", subject
    message.set_content(text)
    message.add_alternative("<p>html</p>", subtype="html")
    return message


@contextmanager
def _server(folder: Path, *options: str) -> Iterator[tuple[str, int, subprocess.Popen[str]]]:
    address = folder / "address"
    argv = [
        sys.executable,
        "-m",
        "devstack.mail",
        "--folder",
        str(folder / "mail"),
        "--address-file",
        str(address),
        *options,
    ]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not address.exists():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline, "the sink did not start"
                _pause(process)
            host, _, port = address.read_text().strip().rpartition(":")
            yield host, int(port), process
        finally:
            process.kill()


def _pause(process: subprocess.Popen[str]) -> None:
    """Gives the process a moment; returns at once when it ends."""
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return


def test_each_recipient_gets_a_file_that_holds_the_mail(tmp_path: Path) -> None:
    with _server(tmp_path) as (host, port, _), smtplib.SMTP(host, port, timeout=20) as client:
        client.send_message(_mail(), to_addrs=["alice@example.com", "bob@example.com"])
    kept = sorted((tmp_path / "mail").iterdir())
    assert [path.name.split("-", 2)[2] for path in kept] == ["alice@example.com.eml", "bob@example.com.eml"]
    message = email.message_from_bytes(kept[0].read_bytes(), policy=email.policy.default)
    assert message["Subject"] == "Grüße"


def test_it_prints_when_asked_and_ends_cleanly_when_told(tmp_path: Path) -> None:
    with _server(tmp_path, "--print") as (host, port, process):
        with smtplib.SMTP(host, port, timeout=20) as client:
            client.send_message(_mail())
        process.send_signal(signal.SIGTERM)
        printed, complaints = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Subject: Grüße" in printed and "Störung auf Leitung 7" in printed
    assert "Traceback" not in complaints


def test_names_sort_by_arrival_and_cannot_leave_the_folder(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "mail")
    paths = [sink.keep(recipient, b"x") for recipient in ("z@example.com", "../../a@example.com", "b@example.com")]
    assert sorted(paths) == paths
    assert {path.parent for path in paths} == {tmp_path / "mail"}


def test_control_signs_of_a_mail_do_not_reach_the_terminal() -> None:
    message = _mail(text="before\x1b[2Jafter\n")
    assert "\x1b" not in readable(message.as_bytes())
    assert "before[2Jafter" in readable(message.as_bytes())
