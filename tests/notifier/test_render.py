"""An email says how a run ended, to people, and cannot be turned into something else by what it quotes."""

from __future__ import annotations

import copy
import dataclasses
import email
import email.policy
import html
import re
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest

from ledger.outbox import Mail, RunLine
from ledger.runs import AttemptView, RunView
from notifier.attach import Files
from notifier.explain import MOST_ATTEMPTS, MOST_LOG, MOST_LOG_LINES, MOST_TEXT, VERBS, duration, moment, size
from notifier.render import CannotRender, render
from schemas.records import Outcome, RunError, Upload

MakeRun = Callable[..., RunView]
MakeMail = Callable[..., Mail]


def received(mail: Mail) -> EmailMessage:
    """The email as its reader's mail program gets it."""
    wire = render(mail, "eventproc@example.com").as_bytes()
    assert b"\n" not in wire.replace(b"\r\n", b""), "lines end with CRLF"
    assert max(map(len, wire.split(b"\r\n"))) <= 998, "RFC 5322 section 2.1.1"
    wire.decode("ascii")
    message = email.message_from_bytes(wire, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def plain(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def rich(message: EmailMessage) -> str:
    part = message.get_body(("html",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def shown(message: EmailMessage) -> str:
    """What a reader of the HTML sees."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", rich(message).partition("</head>")[2])).split())


def both(message: EmailMessage) -> list[str]:
    return [" ".join(plain(message).split()), shown(message)]


def lost(executor: str) -> AttemptView:
    return AttemptView(executor, 0, 1, False, "lost with its executor")


def event(**changes: Any) -> dict[str, Any]:
    from_conftest: dict[str, Any] = {
        "DataSets": [
            {"Name": "/a.cfg", "Success": True, "Error": "", "Streams": [{}] * 24},
            {"Name": "/b.cfg", "Success": False, "Error": "line 3: no station name", "Streams": None},
        ],
        "Recordings": [
            {"Name": "/a.cfg", "Station": "North Anna #1", "Device": "R108", "UtcOffsetSource": "time_code"}
        ],
    }
    return {**copy.deepcopy(from_conftest), **changes}


def test_headers_say_who_what_and_that_a_machine_wrote(mail: MakeMail, run: MakeRun) -> None:
    message = received(mail())
    assert message["Subject"] == "[eventproc] fault_report succeeded on feeder7.zip"
    assert message["From"] == "eventproc@example.com"
    assert message["To"] == "alice@example.com"
    assert message["Message-ID"] == "<1.abc@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Eventproc-Run"] == run().run_id
    assert message["Date"].datetime.tzinfo is not None
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert all(part.get_content_charset() == "utf-8" for part in message.iter_parts())


def test_the_returned_text_stands_first(mail: MakeMail, run: MakeRun) -> None:
    message = received(mail(run(text="phase  A: 4.21 kA\nphase  B: 0.40 kA")))
    assert plain(message).startswith("phase  A: 4.21 kA\nphase  B: 0.40 kA\n\nfault_report succeeded.")
    assert "phase  A: 4.21 kA\nphase  B: 0.40 kA</pre>" in rich(message)


def test_a_handler_that_returned_nothing_is_said_to(mail: MakeMail, run: MakeRun) -> None:
    assert all("It returned nothing." in text for text in both(received(mail(run(text="")))))


def test_a_failure_shows_exception_traceback_and_log(mail: MakeMail, run: MakeRun, error: RunError) -> None:
    message = received(mail(run(state=Outcome.FAILED, text="", error=error)))
    assert message["Subject"] == "[eventproc] fault_report failed on feeder7.zip"
    assert "    ratio = peak / nominal\nZeroDivisionError" in plain(message)
    assert "    ratio = peak / nominal\nZeroDivisionError" in rich(message)
    for text in both(message):
        assert "ZeroDivisionError: float division by zero" in text
        assert "reading 24 streams done" in text
        assert "register it again under the same name" in text


@pytest.mark.parametrize("state", sorted(VERBS))
def test_every_outcome_has_its_words_and_a_next_step(state: Outcome, mail: MakeMail, run: MakeRun) -> None:
    message = received(mail(run(state=state, text="")))
    assert f"fault_report {VERBS[state]} on feeder7.zip" in message["Subject"]
    assert all("on feeder7.zip" in text for text in both(message))
    assert set(VERBS) == set(Outcome)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"state": Outcome.TIMED_OUT, "error": RunError("TimedOut", "ran longer than its limit of 900 s")},
            ["reached its time limit", "stopped after 1.24 s", "ran longer than its limit of 900 s", "aligned_windows"],
        ),
        (
            {
                "state": Outcome.OUT_OF_MEMORY,
                "peak_memory_bytes": 2 << 30,
                "error": RunError("OutOfMemory", "limit 2 GiB"),
            },
            ["more memory than its limit", "the most that was seen is 2 GiB", "limit 2 GiB"],
        ),
        (
            {
                "state": Outcome.OUT_OF_MEMORY,
                "peak_memory_bytes": 6 << 20,
                "error": RunError("numpy.core._exceptions._ArrayMemoryError", "Unable to allocate 7.45 GiB"),
            },
            [
                "asked for more memory on feeder7.zip than its limit leaves, and did not get it",
                "Unable to allocate 7.45 GiB",
            ],
        ),
        ({"state": Outcome.CRASHED, "error": RunError("Crashed", "killed by SIGSEGV")}, ["died", "killed by SIGSEGV"]),
        (
            {
                "state": Outcome.REFUSED,
                "started_at_ns": 0,
                "error": RunError("ModuleNotFoundError", "No module named 'x'"),
            },
            [
                "not a line of it ran",
                "ModuleNotFoundError: No module named 'x'",
                "If x is a package",
                "requirements=[...]",
            ],
        ),
        (
            {
                "state": Outcome.ABANDONED,
                "started_at_ns": 0,
                "ended_at_ns": 0,
                "attempts": (lost("a"),) * 3,
                "error": RunError("Abandoned", "lost 3 times"),
            },
            ["given up", "lost 3 times", "started 3 times", "give the run's id to your operators"],
        ),
    ],
)
def test_outcomes_are_told_with_their_figures(
    changes: dict[str, Any], words: list[str], mail: MakeMail, run: MakeRun
) -> None:
    for text in both(received(mail(run(text="", **changes)))):
        assert [word for word in words if word not in text] == []


def test_a_run_that_was_started_twice_says_so(mail: MakeMail, run: MakeRun) -> None:
    ended = AttemptView("executor-b", 0, 1, True, "succeeded")
    for text in both(received(mail(run(attempts=(lost("executor-a"), ended))))):
        assert "This run was started twice" in text
        assert "1. 1970-01-01 00:00:00 UTC, executor-a: lost with its executor" in text
        assert "2. 1970-01-01 00:00:00 UTC, executor-b: succeeded" in text
    assert "started twice" not in plain(received(mail()))


def test_a_run_that_was_handed_back_before_its_first_line_was_started_once(mail: MakeMail, run: MakeRun) -> None:
    back = AttemptView("executor-a", 0, 1, False, "handed back: BTRDB_AWAY: connection refused")
    ended = AttemptView("executor-b", 0, 1, True, "succeeded")
    for text in both(received(mail(run(attempts=(back, ended))))):
        assert "This run was started" not in text
        assert (
            "UTC, executor-a: handed back: BTRDB_AWAY: connection refused" in text and "executor-b: succeeded" in text
        )


def test_many_attempts_are_shown_by_the_last_of_them(mail: MakeMail, run: MakeRun) -> None:
    text = both(received(mail(run(attempts=(lost("executor-a"),) * 90))))[0]
    first = 90 - MOST_ATTEMPTS + 1
    assert f"* ... * {first}. 1970" in text and f" {first - 1}. 1970" not in text and " 90. 1970" in text


def test_all_attempts_of_a_run_that_was_retried_as_often_as_may_be_are_told(mail: MakeMail, run: MakeRun) -> None:
    failed = [
        AttemptView("executor-a", 0, 1, True, f"failed: ValueError: {number} is no current") for number in range(21)
    ]
    for text in both(received(mail(run(attempts=tuple(failed))))):
        for number in range(21):
            assert f"{number + 1}. 1970-01-01 00:00:00 UTC, executor-a: failed: ValueError: {number} is no" in text
        assert "started 21 times" in text


def test_a_run_that_has_not_ended_makes_no_email(mail: MakeMail, run: MakeRun) -> None:
    with pytest.raises(CannotRender, match="running"):
        render(mail(run(state="running")), "eventproc@example.com")


def test_data_sets_are_listed_and_those_not_read_have_their_error(mail: MakeMail, run: MakeRun) -> None:
    for text in both(received(mail(run(event=event())))):
        assert "/a.cfg" in text and "North Anna #1 / R108, 24 streams" in text
        assert "/b.cfg" in text and "line 3: no station name" in text


def test_an_assumed_offset_a_failed_clock_and_missing_samples_are_noted(mail: MakeMail, run: MakeRun) -> None:
    recording = {"Name": "/a.cfg", "UtcOffsetSource": "assumed", "TimeQuality": "F", "MissingSamples": 1234}
    for text in both(received(mail(run(event=event(Recordings=[recording]))))):
        assert "UTC was assumed for /a.cfg" in text
        assert "clock had failed for /a.cfg" in text
        assert "1,234 samples are missing in /a.cfg" in text
    assert "assumed" not in plain(received(mail(run(event=event()))))


def test_an_event_of_another_hook_needs_no_data_sets(mail: MakeMail, run: MakeRun) -> None:
    other = run(event={"Substation": "x"}, event_subject="")
    message = received(mail(other))
    assert message["Subject"] == "[eventproc] fault_report succeeded on an event"
    assert "Data sets" not in plain(message)


def test_facts_tell_who_when_where_and_the_ids(mail: MakeMail, run: MakeRun) -> None:
    given = run()
    for text in both(received(mail(given))):
        for fact in (
            "version 3",
            "alice",
            "2020-06-11 02:59:10.035 UTC",
            "35 ms after",
            "executor-a, py3.11",
            "143 MiB",
        ):
            assert fact in text
        assert given.run_id in text and given.request_id in text


def test_markup_in_any_text_is_shown_not_obeyed(mail: MakeMail, run: MakeRun) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&"
    names = {"Name": evil, "Success": True, "Streams": []}
    message = received(
        mail(
            run(
                event={
                    "DataSets": [names, {**names, "Success": False, "Error": evil}],
                    "Recordings": [{"Name": evil, "Station": evil, "UtcOffsetSource": "assumed"}],
                },
                state=Outcome.FAILED,
                handler_name=evil,
                owner=evil,
                event_subject=evil,
                text=evil,
                error=RunError(evil, evil, evil),
                log=evil,
                attempts=(AttemptView(evil, 0, 1, True, evil),) * 2,
            )
        )
    )
    assert "<script" not in rich(message) and "<img" not in rich(message)
    assert "&lt;script&gt;" in rich(message)
    assert evil in plain(message)


def test_a_mail_that_accounts_for_no_run_makes_no_email(mail: MakeMail) -> None:
    with pytest.raises(CannotRender, match="no run"):
        render(dataclasses.replace(mail(), runs=()), "eventproc@example.com")


def test_an_event_that_is_no_json_makes_no_email(mail: MakeMail, run: MakeRun) -> None:
    with pytest.raises(CannotRender):
        render(mail(run(event_body=b"\xff")), "eventproc@example.com")


@pytest.mark.parametrize(
    "name", ["Störung Umspannwerk Süd.zip", "故障记录.zip", "повреждение линии.zip", "fault ⚡.zip"]
)
def test_names_in_any_script_arrive_whole(name: str, mail: MakeMail, run: MakeRun) -> None:
    message = received(mail(run(event_subject=name, text=name)))
    assert message["Subject"] == f"[eventproc] fault_report succeeded on {name}"
    assert plain(message).startswith(name)


def test_a_long_name_is_cut_in_the_middle_of_the_subject_only(mail: MakeMail, run: MakeRun) -> None:
    name = "ü" * 250 + "-end.zip"
    message = received(mail(run(event_subject=name)))
    assert len(message["Subject"]) < 160 and message["Subject"].endswith("-end.zip")
    assert name in shown(message)


def test_names_of_any_length_leave_the_email_small(mail: MakeMail, run: MakeRun) -> None:
    huge = "n" * 10**7
    data_sets = [{"Name": huge, "Success": True}, {"Name": huge, "Success": False, "Error": huge}]
    message = render(mail(run(event_subject=huge, event={"DataSets": data_sets})), "eventproc@example.com")
    assert len(message.as_bytes()) < 60_000
    line = RunLine("r", 1, "h", Outcome.FAILED, huge, 0, "E: " + huge)
    line = dataclasses.replace(line, uploads=(Upload("0" * 32, huge, 1),) * 1000)
    message = render(digest_of(mail(), line), "eventproc@example.com")
    assert len(message.as_bytes()) < 20_000


def digest_of(mail: Mail, *lines: RunLine) -> Mail:
    return dataclasses.replace(mail, runs=(), lines=lines)


def test_a_digest_names_each_runs_files_with_their_links(mail: MakeMail, run: MakeRun) -> None:
    uploads = tuple(Upload(f"{number:032x}", f"plot {number}.png", 2048) for number in range(13))
    one, two = (
        RunLine("r1", 1, "h", Outcome.FAILED, "a.zip", 0, "E: no"),
        RunLine("r2", 1, "h", Outcome.SUCCEEDED, "b", 1, ""),
    )
    wanted = digest_of(mail(), dataclasses.replace(one, uploads=uploads[:1]), dataclasses.replace(two, uploads=uploads))

    message = render(wanted, "eventproc@example.com", Files("files.example.com"))

    assert "  plot 0.png, 2 KiB: https://files.example.com/" + "0" * 32 in plain(message)
    assert plain(message).count("plot 0.png") == 2
    assert f'<a href="https://files.example.com/{9:032x}"' in rich(message)
    for text in both(message):
        assert "plot 9.png" in text and "plot 10.png" not in text and "and 3 more files" in text
    for text in both(received(wanted)):
        assert "plot 0.png" in text and "https://" not in text


def test_the_log_is_cut_to_its_end_and_says_so(mail: MakeMail, run: MakeRun) -> None:
    lines = [f"line {number}" for number in range(10_000)]
    message = received(mail(run(log="\n".join(lines))))
    printed = re.findall(r"^line \d+$", plain(message), re.M)
    assert printed == lines[-MOST_LOG_LINES:]
    assert "the end of it" in plain(message) and "the end of it" in shown(message)
    assert len(plain(received(mail(run(log="x" * 10**6))))) < MOST_LOG + 5_000


def test_a_huge_text_is_cut_and_the_rest_counted(mail: MakeMail, run: MakeRun) -> None:
    text = plain(received(mail(run(text="x" * (MOST_TEXT + 1_234)))))
    assert "[... 1,234 more characters]" in text


def test_many_data_sets_are_counted_not_listed(mail: MakeMail, run: MakeRun) -> None:
    many = [{"Name": f"/{number}.cfg", "Success": True, "Streams": []} for number in range(200)]
    for text in both(received(mail(run(event={"DataSets": many})))):
        assert "/24.cfg" in text and "/25.cfg" not in text and "and 175 more" in text


def test_colours_and_control_signs_of_a_terminal_are_taken_out(mail: MakeMail, run: MakeRun) -> None:
    message = received(mail(run(text="\x1b[31mred\x1b[0m\x07", log="a\rb\x00c\n")))
    assert plain(message).startswith("red\n")
    assert "a\nbc\n" in plain(message)


def test_one_email_can_account_for_several_runs(mail: MakeMail, run: MakeRun) -> None:
    message = received(mail(run(), run(run_id="second", text="second text")))
    assert message["Subject"].endswith("feeder7.zip and 1 more")
    assert all("second text" in text for text in both(message))
    assert "second" in message["X-Eventproc-Run"]


def test_figures_are_in_units_that_people_read() -> None:
    times = {0.0351: "35 ms", 0.9996: "1 s", 1.239: "1.24 s", 60: "1 min 0 s", 900: "15 min 0 s", 7500: "2 h 5 min"}
    assert {seconds: duration(seconds) for seconds in times} == times
    assert [size(n) for n in (812, 1024, 150_000_000, 2 << 30)] == ["812 B", "1 KiB", "143 MiB", "2 GiB"]
    assert moment(1591844350123456789) == "2020-06-11 02:59:10.123456789 UTC"
    assert moment(-1, 3) == "1969-12-31 23:59:59.999 UTC"
