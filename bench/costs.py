"""What a stretch of work cost: processor time by process, the ledger's rows and log, Kafka's bytes."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from ledger import Ledger
from ledger.sizes import sizes

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Meter:
    """Where to look. pids: of processes by name, each with all that descends from it; kafka: the broker's folder."""

    pids: dict[str, int]
    kafka: Path
    ledger: Ledger

    def read(self) -> Reading:
        """All counters as they stand."""
        with self.ledger.read() as session:
            ins, upd, gone = session.execute(
                text("SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del) FROM pg_stat_user_tables")
            ).one()
            commits = session.execute(
                text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
            ).scalar_one()
            kept = sum(sizes(session).values())
            wal = session.execute(text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")).scalar_one()
        return Reading(
            at_s=time.monotonic(),
            cpu_s=_cpu(self.pids),
            rows=int(ins or 0) + int(upd or 0) + int(gone or 0),
            commits=int(commits),
            wal_bytes=int(wal),
            kafka_bytes=_logs(self.kafka),
            kept_bytes=kept,
        )


@dataclass(frozen=True)
class Reading:
    """Counters. cpu_s: seconds of processor time by name; rows: written in the ledger; kafka_bytes: in its logs, by topic.

    wal_bytes: of PostgreSQL's log; kept_bytes: of its tables with their indexes."""

    at_s: float
    cpu_s: dict[str, float]
    rows: int
    commits: int
    wal_bytes: int
    kafka_bytes: dict[str, int]
    kept_bytes: int


@dataclass(frozen=True)
class Cost:
    """What was used; of one of something, or of all of a stretch (seconds long)."""

    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    rows: float = 0.0
    commits: float = 0.0
    wal_bytes: float = 0.0
    kafka_bytes: float = 0.0
    kept_bytes: float = 0.0

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Cost:
        """Of the stretch between two readings."""
        return cls(
            after.at_s - before.at_s,
            {name: after.cpu_s[name] - before.cpu_s[name] for name in after.cpu_s},
            after.rows - before.rows,
            after.commits - before.commits,
            after.wal_bytes - before.wal_bytes,
            sum(after.kafka_bytes.values()) - sum(before.kafka_bytes.values()),
            after.kept_bytes - before.kept_bytes,
        )

    def times(self, factor: float) -> Cost:
        """So many of it."""
        cpu = {name: value * factor for name, value in self.cpu_s.items()}
        return Cost(
            self.seconds * factor, cpu, self.rows * factor, self.commits * factor, self.wal_bytes * factor,
            self.kafka_bytes * factor, self.kept_bytes * factor,
        )  # fmt: skip

    def plus(self, other: Cost) -> Cost:
        """Both."""
        cpu = Counter(self.cpu_s)
        for name, value in other.cpu_s.items():
            cpu[name] += value  # type: ignore[assignment]
        return Cost(
            self.seconds + other.seconds, dict(cpu), self.rows + other.rows, self.commits + other.commits,
            self.wal_bytes + other.wal_bytes, self.kafka_bytes + other.kafka_bytes,
            self.kept_bytes + other.kept_bytes,
        )  # fmt: skip

    def without(self, other: Cost) -> Cost:
        """What is left of it; noise below nothing is nothing."""
        left = self.plus(other.times(-1))
        cpu = {name: max(0.0, value) for name, value in left.cpu_s.items()}
        return Cost(
            max(0.0, left.seconds), cpu, max(0.0, left.rows), max(0.0, left.commits), max(0.0, left.wal_bytes),
            max(0.0, left.kafka_bytes), max(0.0, left.kept_bytes),
        )  # fmt: skip

    @property
    def total_cpu_s(self) -> float:
        """Over all processes."""
        return sum(self.cpu_s.values())


def _cpu(pids: dict[str, int]) -> dict[str, float]:
    """Of each process, its descendants and those of them that have ended (proc(5), /proc/pid/stat: 14 to 17)."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(folder.name)
        used[pid] = sum(int(ticks) for ticks in fields[11:15])
        children[int(fields[1])].append(pid)

    def tree(pid: int) -> int:
        return used.get(pid, 0) + sum(tree(child) for child in children[pid])

    return {name: tree(pid) / TICKS for name, pid in pids.items()}


def _logs(kafka: Path) -> dict[str, int]:
    found: Counter[str] = Counter()
    for path in kafka.rglob("*.log"):
        topic, _, partition = path.parent.name.rpartition("-")
        if topic and partition.isdigit() and not topic.startswith("__"):
            found[topic] += path.stat().st_size
    return dict(found)
