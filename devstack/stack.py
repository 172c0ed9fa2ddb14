"""The whole system on one machine: every process with its environment, in the order in which they start."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from devstack import kafka, runtimes
from devstack.layout import METRICS, RUNTIME, Layout, prepare
from devstack.supervisor import Process, StartFailed, Supervisor
from schemas.contracts import hook_names
from schemas.errors import TryLater
from schemas.topics import RESULTS, tasks_topic
from stream.kafka import KafkaBroker
from stream.settings import StreamSettings

ROOT = Path(__file__).resolve().parent.parent
MEMORY_BYTES = 1 << 30  # of a handler
LEASE_S = 12.0  # short, so that a kill -9 of the executor is made good while somebody watches
ARCHIVE_LEASE_S = 5.0  # the same for one of the ingress

GROUPS = {
    "DISPATCHER_GROUP": "eventproc-dispatcher",
    "EXECUTOR_GROUP": "eventproc-executor",
    "NOTIFIER_GROUP": "eventproc-notifier",
    "SWEEPER_NOTIFIER_GROUP": "eventproc-notifier",
}
"""The consumer groups, by the settings that name them."""

Progress = Callable[[str], None]


class Stack:
    """A stack under one state folder. start() blocks until every part answers; stop() ends all of it."""

    def __init__(self, state: Path, *, apart: bool = False) -> None:
        """apart: on a Kafka that is there already its groups are its own, for another stack may be at work there: each sees all
        events from its first start on, and each other's tasks and results are none of its business."""
        self.layout: Layout = prepare(state)
        self.supervisor = Supervisor(self.layout.state)
        # its own Python first, which is awake from the start; with nothing built it is the only one
        self._runtimes: dict[str, Path] = {RUNTIME: Path(sys.executable), **runtimes.built()}
        self._kafka = kafka.command(self.layout.state / "kafka", self.layout.address)
        self.bootstrap = self._kafka.bootstrap
        own = f"-{self.layout.name}"
        self.groups = {name: group + own for name, group in GROUPS.items()} if apart and not self._kafka.argv else {}

    def start(self, progress: Progress) -> None:
        """Starts all parts, telling progress of each; raises the supervisor's error naming the part that did not."""
        if self._kafka.argv:
            self.supervisor.add(Process("kafka", self._kafka.argv, self._kafka.env, ready=self._kafka.ready))
        for process in self._processes():
            self.supervisor.add(process)
        if self.groups:
            self._begin_now()
        self.supervisor.start(progress)
        env = {**self.layout.notebook_env(self.bootstrap), "EXECUTOR_RUNTIMES": self._interpreters(), **self.groups}
        lines = [
            "# source this file to use the stack",
            *(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
            f"export PATH={shlex.quote(str(self._commands()))}:$PATH",
        ]
        self.layout.env_file.touch(mode=0o600)
        self.layout.env_file.write_text("\n".join(lines) + "\n")

    def _begin_now(self) -> None:
        """What others have sent before this stack was is not for its handlers."""
        broker = KafkaBroker(StreamSettings(bootstrap_servers=self.bootstrap))
        try:
            topics = {
                "DISPATCHER_GROUP": hook_names(),
                "EXECUTOR_GROUP": [tasks_topic(runtime) for runtime in self._runtimes],
                "NOTIFIER_GROUP": [RESULTS],
            }
            for name, of in topics.items():
                broker.admin().begin_at_end(self.groups[name], of)
        except TryLater as error:
            raise StartFailed(error.reason) from error
        finally:
            broker.close()

    def _commands(self) -> Path:
        """A folder with the operators' command, and nothing else that would get in somebody's way."""
        folder = self.layout.state / "bin"
        folder.mkdir(exist_ok=True)
        command = folder / "eventproc-admin"
        path = f'{shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
        command.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {shlex.quote(sys.executable)} -m admin "$@"\n')
        command.chmod(0o755)
        return folder

    def stop(self) -> None:
        """Ends every process, the last started first; blocks until they are gone."""
        self.supervisor.stop()

    def _processes(self) -> list[Process]:
        return [
            self._btrdb(),
            self._mail(),
            self._registry(),
            self._dispatcher(),
            self._executor(),
            self._notifier(),
            self._ctingress(),
            self._downloads(),
        ]

    def _shared(self, station: str) -> dict[str, str]:
        known = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR", "EVENTPROC_LOG_LEVEL")
            if name in os.environ
        }
        passed_on = {
            name: value for name, value in os.environ.items() if name.startswith(("EVENTPROC_KAFKA_", "OTEL_"))
        }
        shared = {
            **known,
            **passed_on,
            "PYTHONUNBUFFERED": "1",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "EVENTPROC_KAFKA_REPLICATION": os.environ.get("EVENTPROC_KAFKA_REPLICATION", "1"),
            "EVENTPROC_METRICS_HOST": self.layout.address,
            "EVENTPROC_LEASE_S": str(LEASE_S),
            "EVENTPROC_REINVITE_AFTER_S": "5",
            "EVENTPROC_FILES": f"file://{self.layout.state / 'files'}",
            "EVENTPROC_MAIL_DIGEST_EVERY_S": "30",
            "EVENTPROC_MAIL_DOMAINS": os.environ.get("EVENTPROC_MAIL_DOMAINS", "*"),
            "REGISTRY_RUNTIMES": ",".join(self._runtimes),
            **self.groups,
        }
        if station in METRICS:
            shared["EVENTPROC_METRICS_PORT"] = str(METRICS[station])
        return shared

    def _station(self, name: str, env: dict[str, str], ledger: bool = True, verb: tuple[str, ...] = ()) -> Process:
        if ledger:
            env["EVENTPROC_LEDGER_URL"] = self.layout.ledger_url
        url = f"http://{self.layout.address}:{METRICS[name]}/readyz"
        return Process(
            name,
            [sys.executable, "-m", name, *verb],
            {**self._shared(name), **env},
            ready=lambda: answers_ok(url),
            cwd=ROOT,
            alive=lambda: answers_ok(url.replace("/readyz", "/healthz")),
        )

    def _member(self, station: str) -> str:
        """A static member of its group (KIP-345): one that was killed has its partitions again as soon as it is back."""
        return f"{station}-{self.layout.address}"

    def _btrdb(self) -> Process:
        layout, tls = self.layout, self.layout.certificates
        env = {
            **self._shared("btrdb"),
            "DEVSTACK_BTRDB_ADDRESS": layout.address,
            "DEVSTACK_BTRDB_PORT": "4411",
            "DEVSTACK_BTRDB_DATA": str(layout.state / "btrdb"),
            "DEVSTACK_BTRDB_CERT": str(tls.cert),
            "DEVSTACK_BTRDB_KEY": str(tls.key),
            "DEVSTACK_BTRDB_CA": str(tls.ca),
            "DEVSTACK_BTRDB_KEYS_FILE": str(layout.state / "keys.json"),
            "DEVSTACK_BTRDB_REGISTRY": layout.at("registry"),
        }
        argv = [sys.executable, "-m", "devstack.btrdb"]
        return Process("btrdb", argv, env, ready=lambda: listens(layout.at("btrdb")), cwd=ROOT)

    def _mail(self) -> Process:
        layout = self.layout
        host, _, port = layout.at("smtp").partition(":")
        argv = [sys.executable, "-m", "devstack.mail", "--host", host, "--port", port, "--folder", str(layout.mail)]
        return Process("mail", argv, self._shared("mail"), ready=lambda: listens(layout.at("smtp")), cwd=ROOT)

    def _interpreters(self) -> str:
        return ",".join(f"{name}={python}" for name, python in self._runtimes.items())

    def _registry(self) -> Process:
        layout, tls = self.layout, self.layout.certificates
        return self._station(
            "registry",
            {
                "REGISTRY_LISTEN": layout.at("registry"),
                "REGISTRY_INTERNAL_LISTEN": layout.at("executors"),
                "REGISTRY_CERT": str(tls.cert),
                "REGISTRY_KEY": str(tls.key),
                "REGISTRY_KEYS_FILE": str(layout.state / "keys.json"),
                "REGISTRY_TOKENS_FILE": str(layout.state / "service-token"),
                "REGISTRY_DOWNLOADS_ENDPOINT": layout.at("downloads"),
                "REGISTRY_MOST_MEMORY_BYTES": str(MEMORY_BYTES),
                "EVENTPROC_SEAL_KEYS_FILE": str(layout.state / "seal-keys"),
            },
        )

    def _dispatcher(self) -> Process:
        env = {"SWEEPER_RECONCILE_EVERY_S": "30", "DISPATCHER_INSTANCE": self._member("dispatcher")}
        return self._station("dispatcher", env)

    def _executor(self) -> Process:
        layout, tls = self.layout, self.layout.certificates
        env = {
            "EXECUTOR_RUNTIMES": self._interpreters(),
            "EXECUTOR_REGISTRY": layout.at("executors"),
            "EXECUTOR_REGISTRY_CA": str(tls.ca),
            "EXECUTOR_TOKEN_FILE": str(layout.state / "service-token"),
            "EXECUTOR_BTRDB_ENDPOINT": layout.at("btrdb"),
            "EXECUTOR_BTRDB_CA_BUNDLE": str(tls.ca),
            "EXECUTOR_DOWNLOADS_ENDPOINT": layout.at("downloads"),
            "EXECUTOR_MEMORY_BYTES": str(MEMORY_BYTES),
            "EXECUTOR_RENEW_S": str(LEASE_S / 4),
            "EXECUTOR_GRACE_S": "10",
            "EXECUTOR_INSTANCE": self._member("executor"),
        }
        return self._station("executor", env, ledger=False)

    def _ctingress(self) -> Process:
        layout, tls = self.layout, self.layout.certificates
        env = {
            "CTINGRESS_LISTEN": layout.at("ingress"),
            "CTINGRESS_CERT": str(tls.cert),
            "CTINGRESS_KEY": str(tls.key),
            "CTINGRESS_KEYS_FILE": str(layout.state / "keys.json"),
            "CTINGRESS_LEASE_S": str(ARCHIVE_LEASE_S),
            "CTINGRESS_ARCHIVES": f"file://{layout.state / 'archives'}",
            "EVENTPROC_SEAL_KEYS_FILE": str(layout.state / "seal-keys"),
            "BTRDB_ENDPOINTS": layout.at("btrdb"),
            "BTRDB_CA_BUNDLE": str(tls.ca),
        }
        return self._station("ctingress", env, verb=("serve",))

    def _downloads(self) -> Process:
        layout, tls = self.layout, self.layout.certificates
        env = {
            "DOWNLOADS_LISTEN": layout.at("downloads"),
            "DOWNLOADS_CERT": str(tls.cert),
            "DOWNLOADS_KEY": str(tls.key),
            "DOWNLOADS_KEYS_FILE": str(layout.state / "keys.json"),
        }
        return self._station("downloads", env)

    def _notifier(self) -> Process:
        host, _, port = self.layout.at("smtp").partition(":")
        env = {"NOTIFIER_SMTP_HOST": host, "NOTIFIER_SMTP_PORT": port, "NOTIFIER_SMTP_SECURITY": "none"}
        env |= {
            "NOTIFIER_DOWNLOADS_ENDPOINT": self.layout.at("downloads"),
            "NOTIFIER_INSTANCE": self._member("notifier"),
        }
        return self._station("notifier", {**env, "NOTIFIER_FROM": "eventproc@example.com"})


def listens(address: str) -> bool:
    """Whether a TCP connection to host:port is accepted; blocks up to 1 s."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def answers_ok(url: str) -> bool:
    """Whether an HTTP GET is answered with 200; blocks up to 2 s."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
