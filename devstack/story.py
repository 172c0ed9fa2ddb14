"""The story that `make demo` tells: register, ingest, match, run, mail; each step is checked while it is told."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from btrdbextras import Connection
from btrdbextras.eventproc import Handler, hooks, list_handlers, register
from devstack import tell
from devstack.stack import ROOT, Stack
from examples import handlers
from examples.make_comtrade import fault_archive
from ledger import Ledger
from ledger.outbox import RunView
from ledger.runs import runs
from notifier.explain import size
from schemas.records import Outcome

HOOK = "ctingress.on_complete"
TAGS = ("north", "line-4")
PATIENCE_S = 120.0

T = TypeVar("T")


class StoryFailed(Exception):
    """A step did not go as the story says it must; the text says which and why."""


@dataclass(frozen=True)
class Part:
    """A handler of the story: who registers what under which tags, and how it must end on the project's own archive."""

    user: str
    function: Callable[..., str]
    tags: tuple[str, ...]
    ends: Outcome | None

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return self.function.__name__


PARTS = (
    Part("alice", handlers.fault_report, ("north", "south"), Outcome.SUCCEEDED),
    Part("bob", handlers.trip_times, ("line-4",), Outcome.SUCCEEDED),
    Part("bob", handlers.archive_log, (), Outcome.SUCCEEDED),
    Part("alice", handlers.transformer_check, ("transformers",), None),
    Part("alice", handlers.harmonics, ("north",), Outcome.FAILED),
)


class Story:
    """The story on a running stack."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._ledger = Ledger.open(stack.layout.ledger_url)
        os.environ.update(stack.layout.notebook_env(stack.bootstrap))

    def run(self, archive: Path | None, tags: tuple[str, ...]) -> None:
        """Tells it from beginning to end; blocks; raises StoryFailed."""
        registered = self._register()
        own = archive is not None
        if archive is None:
            archive = self._folder / "north_line4_fault.zip"
            fault_archive(archive, broken_pair=True)
        tags = tags or TAGS
        request_id = self._ingest(archive, tags)
        self._match(registered, tags)
        ended = self._wait_for_runs(request_id)
        self._show_runs(ended)
        if not own:
            self._check_runs(ended)
        self._mails(ended)
        self._ledger.close()

    def _connection(self, user: str) -> Any:
        return Connection(self._stack.layout.at("btrdb"), self._stack.layout.api_keys[user])

    def _register(self) -> list[Handler]:
        tell.chapter(
            1, "Two data scientists register functions", "From their notebooks, with btrdbextras and an API key each:"
        )
        tell.say(f"  hooks(conn) -> {hooks(self._connection('alice'))}\n")
        for part in PARTS:
            self._register_one(part)
        tell.say(
            "\nalice improves fault_report and registers it again, under the same name and hook: version 1, same id."
        )
        self._register_one(PARTS[0])
        registered = list_handlers(self._connection("bob"))
        tell.say("")
        tell.table(
            ("id", "handler", "version", "owner", "tags", "does"),
            [
                (
                    str(h.id),
                    h.name,
                    str(h.version),
                    h.created_by,
                    ", ".join(h.tags) or "(none: every event)",
                    _first_line(h.name),
                )
                for h in registered
            ],
        )
        if [h.version for h in registered if h.name == "fault_report"] != [1]:
            raise StoryFailed("fault_report was registered twice, so it should be there once, as version 1")
        return registered

    def _register_one(self, part: Part) -> None:
        mail = f"{part.user}@example.com"
        decorator = register(self._connection(part.user), part.name, HOOK, mail, mail, tags=list(part.tags))
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            decorator(part.function)
        tell.say(f"  {part.user}: @register(conn, {part.name!r}, {HOOK!r}, {mail!r}, {mail!r}, tags={list(part.tags)})")
        for line in said.getvalue().splitlines():
            tell.say(f"      {line}")

    def _ingest(self, archive: Path, tags: Sequence[str]) -> str:
        tell.chapter(2, "A COMTRADE archive comes in", f"python -m ctingress {archive.name} --tags {','.join(tags)}\n")
        done = subprocess.run(
            [sys.executable, "-m", "ctingress", str(archive.resolve()), "--tags", ",".join(tags)],
            cwd=ROOT,
            env={**os.environ, "BTRDB_API_KEY": self._stack.layout.api_keys["admin"]},
            capture_output=True,
            text=True,
            check=False,
        )
        tell.say(done.stdout.rstrip())
        if done.returncode != 0:
            raise StoryFailed(f"the ingress did not take {archive.name}: {done.stderr.strip() or done.returncode}")
        found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", done.stdout)
        if found is None:
            raise StoryFailed("the ingress did not say which RequestID the event has")
        return found.group()

    def _match(self, registered: Sequence[Handler], tags: Sequence[str]) -> None:
        tell.chapter(
            3,
            "Which handlers match, and why",
            f"The event's tags: {', '.join(tags)}. One in common is enough; no tags takes all.\n",
        )
        rows = []
        for handler in registered:
            shared = sorted(set(handler.tags) & set(tags))
            why = "has no tags" if not handler.tags else f"shares {', '.join(shared)}" if shared else "no tag in common"
            rows.append(
                (
                    handler.name,
                    ", ".join(handler.tags) or "-",
                    "runs" if shared or not handler.tags else "does not run",
                    why,
                )
            )
        tell.table(("handler", "its tags", "", "because"), rows)

    def _wait_for_runs(self, request_id: str) -> list[RunView]:
        def ended() -> list[RunView] | None:
            with self._ledger.read() as session:
                found = runs(session, request_id=request_id)
            return found if found and all(isinstance(run.state, Outcome) for run in found) else None

        return _wait(ended, "the runs to end")

    def _show_runs(self, ended: Sequence[RunView]) -> None:
        tell.chapter(
            4,
            "Each ran in a sandbox of its own, as its user",
            "No network but BTrDB, no files but its own, warm from the pool. Memory: the peak on top of the warm interpreter.\n",
        )
        tell.table(
            ("handler", "as", "ended", "waited", "ran", "CPU", "memory"),
            [
                (
                    f"{run.handler_name} v{run.handler_version}",
                    run.owner,
                    run.state,
                    f"{max(run.started_at_ns // 1_000_000 - run.queued_at_ms, 0)} ms",
                    f"{(run.ended_at_ns - run.started_at_ns) / 1e6:.0f} ms",
                    f"{run.cpu_s * 1000:.0f} ms",
                    size(run.peak_memory_bytes),
                )
                for run in ended
            ],
        )

    def _check_runs(self, ended: Sequence[RunView]) -> None:
        wanted = {part.name: part.ends for part in PARTS if part.ends is not None}
        got = {run.handler_name: run.state for run in ended}
        if got != wanted:
            raise StoryFailed(f"the runs should have ended as {_plain(wanted)}, they ended as {_plain(got)}")
        text = next(run.text for run in ended if run.handler_name == "fault_report")
        if "fault on" not in text or "RMS primary" not in text:
            raise StoryFailed(f"fault_report should have found the fault; it says: {text}")
        log = next(run.text for run in ended if run.handler_name == "archive_log")
        if "NOT READ" not in log:
            raise StoryFailed(f"the unreadable pair should be in the event with its error; archive_log says: {log}")
        trace = next(run.error.traceback for run in ended if run.handler_name == "harmonics" and run.error)
        if "third / fundamental" not in trace:
            raise StoryFailed(f"the traceback should show the user's source line; it is: {trace}")

    def _mails(self, ended: Sequence[RunView]) -> None:
        tell.chapter(5, "The emails", "As they arrived, in full.\n")

        def arrived() -> list[Path] | None:
            found = sorted(self._stack.layout.mail.glob("*.eml"))
            return found if len(found) >= len(ended) else None

        found = _wait(arrived, f"{len(ended)} emails")
        for path in found:
            tell.mail(path)
        if len(found) != len(ended):
            raise StoryFailed(f"{len(ended)} runs should make {len(ended)} emails; there are {len(found)}")


def _wait(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise StoryFailed(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.05)
    return found


def _plain(outcomes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {outcome}" for name, outcome in sorted(outcomes.items()))


def _first_line(name: str) -> str:
    function = getattr(handlers, name, None)
    return (inspect.getdoc(function) or "").splitlines()[0] if function else ""
