"""Kill points: where a process may be made to die on purpose, to show that nothing is lost or doubled there.

Off unless EVENTPROC_FAULTS is set; then every named point kills its process (SIGKILL, no clean-up) with that probability.
"""

from __future__ import annotations

import datetime
import os
import random
import signal
import sys
import threading
from pathlib import Path

POINTS = (
    "ledger.before_commit",
    "ledger.after_commit",
    "offset.before_commit",
    "offset.after_commit",
    "note.before_commit",
    "note.after_commit",
    "produce.before_send",
    "produce.before_flush",
    "produce.after_flush",
    "smtp.before_data",
    "smtp.after_data",
    "run.before_start",
    "run.after_end",
)
"""Each boundary at which a process can die with half of its work done."""


class _Faults:
    """EVENTPROC_FAULTS=probability of one passage, 0..1; _POINTS: the only points that
    count, comma-separated, name or name=probability; _SEED: any text;
    _NAME: what the log calls this process; _LOG: a file that gets a line per kill; _WHILE: a file without which nothing is killed.

    The draw follows from the seed, the process's name and how many lines the log has already, so that a run with one process
    at a time goes the same way again.
    """

    def __init__(self) -> None:
        usual = float(os.environ.get("EVENTPROC_FAULTS", "0"))
        named = dict.fromkeys(POINTS, usual)
        if given := [one for one in os.environ.get("EVENTPROC_FAULTS_POINTS", "").split(",") if one]:
            pairs = [one.partition("=") for one in given]
            named = {name: float(chance) if chance else usual for name, _, chance in pairs}
        if unknown := named.keys() - set(POINTS):
            raise ValueError(
                f"EVENTPROC_FAULTS_POINTS: there is no {', '.join(unknown)}; there are {', '.join(POINTS)}"
            )
        self._chances = named
        self._while = os.environ.get("EVENTPROC_FAULTS_WHILE", "")
        self._log = os.environ.get("EVENTPROC_FAULTS_LOG", "")
        boots = len(Path(self._log).read_text().splitlines()) if self._log and Path(self._log).exists() else 0
        self._name = os.environ.get("EVENTPROC_FAULTS_NAME") or Path(sys.argv[0]).parent.name
        self._draw = random.Random(f"{os.environ.get('EVENTPROC_FAULTS_SEED', '0')}/{self._name}/{boots}")
        self._lock = threading.Lock()

    def passed(self, point: str) -> None:
        """The process is at this point; it may not go on from here."""
        if point not in self._chances:
            return
        with self._lock:
            if self._draw.random() >= self._chances[point]:
                return
        if self._while and not Path(self._while).exists():
            return
        if self._log:
            # one write of a short line to a file opened for appending is not torn (write(2), O_APPEND)
            handle = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(handle, f"{self._name} {point} {datetime.datetime.now(datetime.UTC).isoformat()}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


_faults = _Faults() if os.environ.get("EVENTPROC_FAULTS") else None


def point(name: str) -> None:
    """A kill point; name: one of POINTS. Costs a comparison when faults are off."""
    if _faults is not None:
        assert name in POINTS, name
        _faults.passed(name)
