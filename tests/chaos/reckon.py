"""After the chaos: does everything add up? From four books that do not know of each other: what the broker acknowledged, the
ledger, the executors' logs and the emails as they arrived."""

from __future__ import annotations

import datetime
import email
import email.policy
import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from devstack.layout import RUNTIME
from ledger import Ledger
from ledger.handlers import HandlerView
from ledger.tables import GIVEN_UP, PENDING, SENDING, AttemptRow, NotificationRow, RunRow
from schemas.contracts import hook_names
from schemas.events import run_id
from schemas.records import Outcome
from schemas.topics import DEAD_LETTERS, RESULTS, tasks_topic
from stream.broker import Admin
from tests.chaos.handlers import Registered
from tests.chaos.havoc import Deed

HOOK = "ctingress.on_complete"
GROUPS = {
    "eventproc-dispatcher": tuple(hook_names()),
    "eventproc-executor": (tasks_topic(RUNTIME),),
    "eventproc-notifier": (RESULTS,),
}
AGAIN_BECAUSE = ("lost with its executor", "its result never came", "handed back: ")
SLACK_S = 2.0


@dataclass
class Books:
    """What was found. lost, doubled: each a sentence."""

    events: int = 0
    runs: int = 0
    terminal: int = 0
    emails: int = 0
    copies: int = 0
    starts: int = 0
    started_again: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    def last_line(self) -> str:
        """The counts as make chaos prints them last."""
        return (
            f"events={self.events} runs={self.runs} terminal={self.terminal} emails={self.emails} "
            f"lost={len(self.lost)} doubled={len(self.doubled)}"
        )


@dataclass(frozen=True)
class Start:
    """A handler's first line, as an executor's log tells it."""

    run_id: str
    attempt: int
    executor: str


def unsettled(ledger: Ledger, admin: Admin, expected: int) -> str:
    """What is still under way; '' when nothing is. Raises TryLater."""
    with ledger.read() as session:
        states = Counter(session.scalars(select(RunRow.state)))
        waiting = session.scalars(select(NotificationRow.id).where(NotificationRow.state.in_((PENDING, SENDING)))).all()
    ended = sum(states[outcome.value] for outcome in Outcome)
    if ended < expected:
        return f"{ended} of {expected} runs have ended ({dict(states)})"
    if waiting:
        return f"{len(waiting)} emails are in the outbox"
    for group, topics in GROUPS.items():
        for topic in topics:
            if behind := admin.lag(group, topic):
                return f"{group} has not committed {behind} messages of {topic}"
    return ""


def expected_runs(
    events: Mapping[str, tuple[str, ...]], handlers: Mapping[str, tuple[Registered, HandlerView]]
) -> dict[str, Registered]:
    """Run id -> its handler, for every event that meets one by its tags."""
    return {
        run_id(HOOK, request_id, view.id): registered
        for request_id, tags in events.items()
        for registered, view in handlers.values()
        if set(tags) & set(registered.tags)
    }


def reckon(
    ledger: Ledger,
    admin: Admin,
    events: Mapping[str, object],
    expected: Mapping[str, Registered],
    state: Path,
    deeds: Iterable[Deed],
    besides: Container[str] = (),
) -> Books:
    """Compares the four books; deeds: what was done to whom, kill points among them; besides: runs that are not of these events.
    Raises TryLater."""
    books, deeds = Books(events=len(events)), list(deeds)
    with ledger.read() as session:
        runs = {row.id: row.state for row in session.scalars(select(RunRow)) if row.id not in besides}
        attempts = {(row.run_id, row.number): row for row in session.scalars(select(AttemptRow))}
        mails = {row.message_id: row for row in session.scalars(select(NotificationRow))}
    books.runs = len(runs)
    books.outcomes = Counter(runs.values())
    outcomes = {run: Outcome(state) for run, state in runs.items() if state in set(Outcome)}
    books.terminal = len(outcomes)
    books.lost += [f"run {run} was never made" for run in expected.keys() - runs.keys()]
    books.doubled += [f"run {run} should not be" for run in runs.keys() - expected.keys()]
    books.lost += [f"run {run} has not ended: {state}" for run, state in runs.items() if run not in outcomes]
    books.lost += [
        f"email {mail.message_id} was given up: {mail.reason}" for mail in mails.values() if mail.state == GIVEN_UP
    ]
    _offsets(books, admin)
    _closings(books, state)
    due = {
        run: recipient
        for run, outcome in outcomes.items()
        if run in expected
        and (recipient := expected[run].on_success if outcome is Outcome.SUCCEEDED else expected[run].on_failure)
    }
    _emails(
        books,
        state / "mail",
        due,
        [deed for deed in deeds if deed.station in ("notifier", "mail", "postgresql")],
    )
    _starts(books, state, attempts, [deed for deed in deeds if deed.station == "executor"])
    return books


def _offsets(books: Books, admin: Admin) -> None:
    for group, topics in GROUPS.items():
        for topic in topics:
            committed = admin.committed(group, topic)
            for partition, end in admin.end_offsets(topic).items():
                if committed.get(partition, 0) != end:
                    books.lost.append(
                        f"{group} has committed {committed.get(partition, 0)} of {end} in {topic}/{partition}"
                    )
    books.lost += [
        f"{end} dead letters in partition {part}" for part, end in admin.end_offsets(DEAD_LETTERS).items() if end
    ]


def _closings(books: Books, state: Path) -> None:
    """A run is closed once: the notifiers say so in their logs after the transaction."""
    closed = Counter(line["run_id"] for line in said(state, "notifier-*", "closed"))
    books.doubled += [f"run {run} was closed {count} times" for run, count in closed.items() if count > 1]


def _emails(books: Books, folder: Path, due: Mapping[str, str], deeds: list[Deed]) -> None:
    """Each run that is due an email is in exactly one, by Message-ID, and at the right address.

    A copy has the Message-ID of the first, by which mail programs know it. SMTP can have them when a side dies, or is cut off,
    between the end of DATA and the note of the answer: so at most one for each thing done to a sender, the server or the ledger.
    """
    arrived: dict[str, tuple[str, frozenset[str]]] = {}
    for path in sorted(folder.glob("*.eml")):
        mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        told = frozenset(str(mail["X-Eventproc-Run"]).replace(",", " ").split())
        if arrived.setdefault(mail["Message-ID"], (mail["To"], told)) == (mail["To"], told):
            books.copies += 1
        else:
            books.doubled.append(f"two different emails have the Message-ID {mail['Message-ID']}")
    books.emails = len(arrived)
    books.copies -= len(arrived)
    if books.copies > len(deeds):
        books.doubled.append(
            f"{books.copies} copies of emails arrived, but only {len(deeds)} times was there a cause for one"
        )
    told_in: dict[str, list[str]] = defaultdict(list)
    for message_id, (recipient, runs) in arrived.items():
        for run in runs:
            told_in[run].append(message_id)
            if due.get(run) != recipient:
                books.doubled.append(f"run {run} was told to {recipient}, it should be {due.get(run, 'nobody')}")
    books.lost += [f"run {run} is in no email" for run in due if run not in told_in]
    books.doubled += [f"run {run} is in {len(ids)} emails" for run, ids in told_in.items() if len(ids) > 1]


def _starts(books: Books, state: Path, attempts: Mapping[tuple[str, int], AttemptRow], deeds: list[Deed]) -> None:
    """A handler starts again only after an attempt that the ledger took away or got back, and only with a cause for it."""
    started: dict[str, list[Start]] = defaultdict(list)
    for line in said(state, "executor-*", "begun"):
        started[line["run_id"]].append(Start(line["run_id"], int(line["attempt"]), line["log"]))
    given_up = {line["run_id"] for line in said(state, "executor-*", "lease lost")}
    books.starts = sum(map(len, started.values()))
    books.started_again = books.starts - len(started)
    for run, starts in started.items():
        numbers = Counter(start.attempt for start in starts)
        books.doubled += [f"attempt {n} of run {run} began {count} times" for n, count in numbers.items() if count > 1]
        for number in sorted(numbers)[:-1]:
            attempt = attempts[(run, number)]
            if not attempt.reason.startswith(AGAIN_BECAUSE):
                books.doubled.append(
                    f"run {run} began again, though its attempt {number} ended: {attempt.reason or 'not'}"
                )
            elif run not in given_up and not _had_cause(attempt, deeds):
                books.doubled.append(
                    f"run {run} began again though nothing was done to {attempt.executor}: {attempt.reason}"
                )


def _had_cause(attempt: AttemptRow, deeds: list[Deed]) -> bool:
    since, until = attempt.claimed_at_ms / 1000 - SLACK_S, (attempt.ended_at_ms or 0) / 1000 + SLACK_S
    return any(
        deed.name == attempt.executor and deed.at_s + deed.for_s >= since and deed.at_s <= until for deed in deeds
    )


def said(state: Path, logs: str, event: str) -> list[dict[str, str]]:
    """The lines of these logs that say so; log: whose it was."""
    found = []
    for path in (state / "logs").glob(f"{logs}.log"):
        for line in path.read_text(errors="replace").splitlines():
            if f'"{event}"' not in line or not line.startswith("{"):
                continue
            said = json.loads(line)
            if said.get("event") == event:
                found.append({**said, "log": path.stem})
    return found


def kill_points(log: Path) -> list[tuple[Deed, str]]:
    """Who died at which point, from the log of kill points."""
    if not log.exists():
        return []
    found = []
    for line in log.read_text().splitlines():
        name, point, at = line.split()
        found.append((Deed(datetime.datetime.fromisoformat(at).timestamp(), name, "died"), point))
    return found
