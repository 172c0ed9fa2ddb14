"""Many closed runs -> what their digest says, in plain words; no layout in here."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ledger.notify import KEY
from ledger.runs import RunLine
from notifier.attach import NO_FILES, File, Files
from notifier.explain import VERBS, clean, moment
from schemas.records import Outcome

KEY_SAID = (
    "BTrDB refuses the API key that your handlers run under, so all of them are paused, and their runs that have not begun wait. "
    "Connect with a key that is good and call rekey(conn) of btrdbextras.eventproc once: the handlers are resumed, and the runs "
    "that wait go on. What was refused, and events that came meanwhile, replay(conn, handler, since=...) runs."
)
MOST_LINE = 200  # characters of a name or an error
MOST_FILES = 10  # of one run; the others are in run(conn, id)


@dataclass(frozen=True)
class Told:
    """One run. when: to the second, UTC; error: one line, '' when it succeeded; files: the first of them, more_files: how many are not."""

    run_id: str
    verb: str
    archive: str
    when: str
    error: str
    files: tuple[File, ...] = ()
    more_files: int = 0


@dataclass(frozen=True)
class OfHandler:
    """A handler's runs. summary: '12 failed, 1 timed out'."""

    handler: str
    summary: str
    runs: tuple[Told, ...]


@dataclass(frozen=True)
class Digest:
    """subject: one line; why: why these runs have no emails of their own; handlers: by name."""

    subject: str
    why: str
    handlers: tuple[OfHandler, ...]
    run_ids: tuple[str, ...]


def summed_up(lines: Sequence[RunLine], kind: str = "", files: Files = NO_FILES) -> Digest:
    """Everything that a digest says of these runs: at least one, in the order in which they are to be told.

    files: how their files are linked; pictures are not shown.
    """
    linked = dataclasses.replace(files, store=None)
    handlers = []
    for (_, name), some in groupby(lines, key=lambda line: (line.handler_id, line.handler_name)):
        of_one = list(some)
        handlers.append(OfHandler(_line(name), _summary(of_one), tuple(_told(line, linked) for line in of_one)))
    if kind == KEY:
        subject, why = "[eventproc] BTrDB refuses your API key: your handlers are paused", KEY_SAID
        return Digest(subject, why, tuple(handlers), tuple(line.run_id for line in lines))
    count, most = len(lines), max(handlers, key=lambda one: len(one.runs))
    more = f" and {len(handlers) - 1} other handler{'s' if len(handlers) > 2 else ''}" if len(handlers) > 1 else ""
    return Digest(
        subject=f"[eventproc] {count} run{'s' if count > 1 else ''}: {_summary(lines)} ({most.handler[:100]}{more})",
        why="These runs are told of together: their handlers ask for that, or there were many emails to this address lately.",
        handlers=tuple(handlers),
        run_ids=tuple(line.run_id for line in lines),
    )


def _summary(lines: Sequence[RunLine]) -> str:
    counted = Counter(line.outcome for line in lines)
    return ", ".join(f"{counted[outcome]} {VERBS[outcome]}" for outcome in Outcome if counted[outcome])


def _told(line: RunLine, files: Files) -> Told:
    when = moment(line.ended_at_ms * 1_000_000, digits=3)
    listed = files.of(line.run_id, line.uploads[:MOST_FILES])
    named = tuple(dataclasses.replace(file, name=_line(file.name)) for file in listed)
    subject, more = _line(line.subject) or "an event", len(line.uploads) - len(named)
    return Told(line.run_id, VERBS[line.outcome], subject, when, _line(line.error), named, more)


def _line(text: str) -> str:
    line = " ".join(clean(text[:MOST_LINE]).split())
    return line if len(text) <= MOST_LINE else f"{line}..."
