"""The whole system with several of each station, on a real Kafka and a real PostgreSQL, with kill points in every process.

Each station comes to the ledger under a role of its own, which has the rights of ledger/roles.json and no others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from devstack.layout import RUNTIME
from devstack.stack import ROOT, Stack, answers_ok, listens
from devstack.supervisor import Process
from faults import POINTS
from ledger.roles import USUAL, role_names
from tests.chaos.postgresql import PostgreSQL

LEASE_S = 8.0
COUNTS = {"registry": 1, "dispatcher": 2, "notifier": 2, "executor": 3}
RARER = 4
BEHIND = 1000
"""A second registry listens so much higher than the first, and both behind one address that is as much higher again."""
SHARED = {
    "EVENTPROC_LEASE_S": str(LEASE_S),
    "EVENTPROC_REINVITE_AFTER_S": "5",
    "EVENTPROC_MAIL_DIGEST_EVERY_S": "4",
    "EVENTPROC_KAFKA_SESSION_TIMEOUT_MS": "6000",
    "EVENTPROC_KAFKA_REQUEST_TIMEOUT_MS": "4000",
    "SWEEPER_EVERY_S": "0.3",
    "SWEEPER_LEAD_S": "3",
    "EXECUTOR_SLOTS": "4",
    "EXECUTOR_WARM": "4",
    "EXECUTOR_WALL_S": "3",
    "EXECUTOR_GRACE_S": "2",
    "EXECUTOR_RENEW_S": "1",
    "EXECUTOR_REGISTRY_TIMEOUT_S": "3",
    "EXECUTOR_MEMORY_BYTES": str(256 << 20),
    "NOTIFIER_SMTP_TIMEOUT_S": "1",
    "NOTIFIER_LEASE_S": "15",
    "NOTIFIER_BATCH": "10",
    "NOTIFIER_FIRST_WAIT_S": "0.5",
    "NOTIFIER_LONGEST_WAIT_S": "2",
}
"""Every wait is shortened by about the same, as an operator would do it: by settings."""


class Stage(Stack):
    """A Stack with two dispatchers, two notifiers and several executors. Processes are named dispatcher-1, executor-3, ..."""

    def __init__(
        self,
        state: Path,
        seed: int = 0,
        chance: float = 0.0,
        settings: Mapping[str, str] = SHARED,
        counts: Mapping[str, int] = COUNTS,
        newer: Path | None = None,
    ) -> None:
        """chance: of a process to die at one passage of a kill point (four times that where passages are rarer), while the
        file `faults` is there; settings: of every station, on top of the stack's; counts: how many there are of each station;
        newer: a tree of another release, from which all but the first of each station run."""
        super().__init__(state)
        self._counts = dict(counts)
        self._newer = newer
        self.postgresql = PostgreSQL(self.layout.address, 5432)
        self.fault_log = self.layout.state / "faults.log"
        self.faulty = self.layout.state / "faults"
        self._seed = seed
        self._chance = chance
        self._settings = settings
        self._has_roles = False
        self.pages: dict[str, str] = {}  # station -> where it tells of its health

    @property
    def ledger_url(self) -> str:
        """The ledger in PostgreSQL."""
        return self.postgresql.url

    def names(self) -> list[str]:
        """Every process, the broker's and the database's among them."""
        return ["kafka", *(process.name for process in self._processes())]

    def all_ready(self) -> bool:
        """Whether every station answers that it is ready."""
        return all(answers_ok(f"{url}/readyz") for url in self.pages.values())

    def pid(self, name: str) -> int | None:
        """The process's pid as the supervisor last wrote it; None while it is being started."""
        try:
            return int((self.layout.state / "pids" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None

    def signal(self, name: str, number: int) -> bool:
        """Sends a signal to the process (for PostgreSQL: to its backends too); False when it is not there."""
        pid = self.pid(name)
        if pid is None:
            return False
        whole = [pid, *_children(pid)] if name == "postgresql" and number in (signal.SIGSTOP, signal.SIGCONT) else [pid]
        for one in whole:
            try:
                os.kill(one, number)
            except ProcessLookupError:
                return False
        return True

    def _processes(self) -> list[Process]:
        one = {process.name: process for process in super()._processes()}
        database = replace(self.postgresql.process, ready=self._database_is_ready)
        made = [database, one["btrdb"], one["mail"]]
        if self._counts["registry"] > 1:
            made = [*made, *self._services()]
        for station, count in self._counts.items():
            names = [f"{station}-{i}" for i in range(1, count + 1)] if count > 1 else [station]
            made += [self._copy(one[station], name, 9200 + len(made) + i, i) for i, name in enumerate(names)]
        return [self._to_services(process) for process in made] if self._counts["registry"] > 1 else made

    def _database_is_ready(self) -> bool:
        """With its tables, and the stations' roles."""
        if not self.postgresql.process.ready():
            return False
        if not self._has_roles:
            argv = [sys.executable, "-m", "admin", "migrate", "--roles", USUAL]
            env = {**os.environ, "EVENTPROC_LEDGER_URL": self.ledger_url}
            subprocess.run(argv, env=env, cwd=self._newer or ROOT, check=True, stdout=subprocess.DEVNULL)
            self.postgresql.let_log_in(role_names(USUAL).values())
            self._has_roles = True
        return True

    def at_higher(self, part: str, number: int) -> str:
        """host:port of the number-th further process that listens where the part does; 0: the part's own."""
        host, _, port = self.layout.at(part).rpartition(":")
        return f"{host}:{int(port) + number * BEHIND}"

    def _services(self) -> list[Process]:
        count, made = self._counts["registry"], []
        for part in ("registry", "executors"):
            listen = self.at_higher(part, count)
            to = ",".join(self.at_higher(part, number) for number in range(count))
            argv = [sys.executable, "-m", "tests.chaos.service", "--listen", listen, "--to", to]
            made.append(Process(f"service-{part}", argv, dict(os.environ), lambda at=listen: listens(at), ROOT))  # type: ignore[misc]
        return made

    def _to_services(self, process: Process) -> Process:
        """The process as it is where several registries stand behind one address."""
        ways = {"DEVSTACK_BTRDB_REGISTRY": "registry", "EXECUTOR_REGISTRY": "executors"}
        changed = {
            name: self.at_higher(part, self._counts["registry"]) for name, part in ways.items() if name in process.env
        }
        return replace(process, env={**process.env, **changed})

    def _copy(self, process: Process, name: str, port: int, number: int) -> Process:
        url = f"http://{self.layout.address}:{port}"
        env = {
            **process.env,
            **self._settings,
            "EVENTPROC_METRICS_PORT": str(port),
            "EVENTPROC_FAULTS": str(self._chance),
            "EVENTPROC_FAULTS_POINTS": ",".join(f"{point}={self._chance_of(point)}" for point in POINTS),
            "EVENTPROC_FAULTS_SEED": f"{self._seed}/{name}",
            "EVENTPROC_FAULTS_NAME": name,
            "EVENTPROC_FAULTS_LOG": str(self.fault_log),
            "EVENTPROC_FAULTS_WHILE": str(self.faulty),
            "EXECUTOR_NAME": name,
            "NOTIFIER_NAME": name,
            "REGISTRY_RUNTIMES": RUNTIME,
        }
        station = name.partition("-")[0]
        if "EVENTPROC_LEDGER_URL" in env:
            env["EVENTPROC_LEDGER_URL"] = self.postgresql.url_of(USUAL.format(station=station))
        # the first of each is a static member of its group, the others come and go as members do by default
        instance = f"{station.upper()}_INSTANCE"
        if env.pop(instance, "") and number == 0:
            env[instance] = name
        listening = {
            "REGISTRY_LISTEN": "registry",
            "REGISTRY_INTERNAL_LISTEN": "executors",
            "CTINGRESS_LISTEN": "ingress",
        }
        env |= {variable: self.at_higher(part, number) for variable, part in listening.items() if variable in env}
        # they wait for each other by themselves: only the registry is needed before the next step
        self.pages[name] = url
        ready = (lambda: answers_ok(f"{url}/readyz")) if name.startswith("registry") else (lambda: True)
        cwd = self._newer if self._newer is not None and number else process.cwd
        return replace(process, name=name, env=env, ready=ready, cwd=cwd, alive=lambda: answers_ok(f"{url}/healthz"))

    def _chance_of(self, point: str) -> float:
        """Transactions of the ledger are many; the other points are passed a few times for each run."""
        return self._chance if point.startswith("ledger.") else self._chance * RARER

    def stop(self) -> None:
        """Kills every process, all at once, and takes the database's folder away."""
        for name in self.names():
            self.supervisor.take_down(name)
        super().stop()
        self.postgresql.remove()


def _children(pid: int) -> Sequence[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
