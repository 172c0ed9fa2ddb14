"""From what one archive, event, run and email cost to what a storm needs: the arithmetic of docs/sizing.md."""

from __future__ import annotations

from dataclasses import dataclass

from bench.costs import Cost

STATIONS = ("ctingress", "dispatcher", "registry", "notifier")
"""Whose processes Python keeps to one core; an executor's work is mostly its children's."""
BUSY = 0.7
"""The share of a core that such a process should be busy at most, so that waits stay short."""


@dataclass(frozen=True)
class Costs:
    """Of one each. run: claimed, run by a handler that does next to nothing, closed; email: besides."""

    archive: Cost
    event: Cost
    run: Cost
    email: Cost

    def of_archive(self, runs: float) -> Cost:
        """Of an archive with all that follows, when so many handlers match, each with an email."""
        return self.archive.plus(self.event).plus(self.run.plus(self.email).times(runs))


@dataclass(frozen=True)
class Need:
    """What a rate needs. cores: by process; processes: of stations, at BUSY of a core each; per second: the others.

    kept_gb_per_day: by which the ledger grows while the rate lasts, until retention takes as much away."""

    archives_per_hour: float
    cores: dict[str, float]
    processes: dict[str, int]
    runs_per_s: float
    commits_per_s: float
    rows_per_s: float
    wal_mb_per_s: float
    kafka_mb_per_s: float
    kept_gb_per_day: float


def need(costs: Costs, archives_per_hour: float, runs: float) -> Need:
    """Of so many archives an hour, with so many matching handlers each. A handler's own work comes on top."""
    per_s = archives_per_hour / 3600
    all_of_it = costs.of_archive(runs).times(per_s)
    cores = dict(all_of_it.cpu_s)
    processes = {name: max(1, -(-int(cores.get(name, 0.0) * 1000) // int(BUSY * 1000))) for name in STATIONS}
    return Need(
        archives_per_hour, cores, processes, per_s * runs, all_of_it.commits, all_of_it.rows, all_of_it.wal_bytes / 1e6,
        all_of_it.kafka_bytes / 1e6, all_of_it.kept_bytes * 86_400 / 1e9,
    )  # fmt: skip
