"""python -m ctingress serve: archives over HTTP. Reads settings, wires, runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import btrdb
import structlog
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from callers import ApiKeys
from ctingress.accept import Desk
from ctingress.describe import HOOK
from ctingress.open import Limits
from ctingress.receive import make_app
from ctingress.room import Room
from ctingress.settings import IngressSettings
from ctingress.work import Worker
from ledger import Ledger, archives
from ledger.settings import KeepSettings, SealSettings
from objectstore import ObjectStore
from schemas.errors import TryLater
from stream import loop
from stream.connect import open_book, open_broker
from stream.settings import StreamSettings
from telemetry import metrics, traces
from telemetry.health import Health
from telemetry.https import make_server
from telemetry.settings import from_environment
from telemetry.station import begin, listening
from telemetry.threads import Threads

log = structlog.get_logger()

IDLE_S = 1.0
FORGET_EVERY_S = 600.0
AT_ONCE = 100


class ServeSettings(SealSettings):
    """CTINGRESS_*, beside those of IngressSettings."""

    model_config = SettingsConfigDict(env_prefix="CTINGRESS_", populate_by_name=True)

    ledger_url: str = Field(validation_alias="EVENTPROC_LEDGER_URL")
    listen: str = Field("0.0.0.0:4415", description="host:port")
    cert: Path | None = Field(
        None, description="PEM file with the certificate chain; none: plain HTTP, behind an ingress"
    )
    key: Path | None = None
    keys_file: Path = Field(description="JSON with the digests of API keys, as the registry has it")
    archives: str = Field(description="where uploads lie until they are published: file:///path, s3://bucket/path, ...")
    max_upload_bytes: int = Field(1 << 30, ge=1024, description="of one upload")
    once_by_digest: bool = Field(False, description="the same content with the same parameters is the same upload")
    workers: int = Field(1, ge=1, description="archives that are worked on at a time")
    lease_s: float = Field(15.0, gt=0, description="a worker that died leaves its archive to the next after this")
    give_up_s: float = Field(3 * 86_400.0, gt=0, description="how long BTrDB or Kafka may be away for an archive")


def main() -> int:
    """Runs until SIGTERM or SIGINT; an archive in hand is finished by whoever comes next. 1 when a worker broke down."""
    settings, ingress = from_environment(ServeSettings), from_environment(IngressSettings)
    belt, keep_days = from_environment(StreamSettings), from_environment(KeepSettings).archives_days
    stop, health = begin("ctingress", needs=("ledger", "kafka", "http"))
    ledger = Ledger.open(settings.ledger_url, settings.sealing())
    loop.until_ready(ledger.migrate, health, "ledger", stop)
    broker = open_broker(belt)
    producer = broker.producer()
    book = open_book(belt, broker.admin(), producer)
    loop.until_ready(lambda: book.publish([(HOOK, HOOK)]), health, "kafka", stop)
    limits = ingress.limits()
    keep = ObjectStore(settings.archives)
    wake, room = threading.Event(), Room()
    crew = [
        Worker(
            ledger, keep, producer, lambda key: btrdb.connect(ingress.btrdb_endpoint, apikey=key), limits=limits,
            largest_message=belt.max_message_bytes, lease_s=settings.lease_s, give_up_s=settings.give_up_s,
            room=room,
        )
        for _ in range(settings.workers)
    ]  # fmt: skip
    app = make_app(_desk(settings, ledger, keep, limits, wake))
    server = make_server(app, settings.listen, settings.cert, settings.key)
    threads = Threads(stop)
    for worker in crew:
        threads.start("worker", _work, worker, stop, wake)
    http = threading.Thread(target=server.run, name="http", daemon=True)
    http.start()
    if keep_days:
        threads.start("remover", _remove, ledger, keep, keep_days, stop)
    listening(http, lambda: server.started, health, stop)
    while not stop.wait(IDLE_S) and http.is_alive():
        health.turn()
        _measure(ledger, health)
    stop.set()
    wake.set()
    server.should_exit = True
    http.join(timeout=10)
    if not threads.failed:
        _leave(crew)
    broker.close()
    ledger.close()
    traces.close()
    return 1 if threads.failed else 0


def _desk(settings: ServeSettings, ledger: Ledger, keep: ObjectStore, limits: Limits, wake: threading.Event) -> Desk:
    keys = ApiKeys(settings.keys_file)
    metrics.api_keys_unreadable.set_function(lambda: not keys.readable())
    return Desk(ledger, keys, keep, limits, settings.max_upload_bytes, settings.once_by_digest, wake.set)


def _work(worker: Worker, stop: threading.Event, wake: threading.Event) -> None:
    while not stop.is_set():
        try:
            busy = worker.turn()
        except TryLater as error:
            log.warning("waiting", reason=error.reason)
            busy = False
        if not busy:
            wake.wait(IDLE_S)
            wake.clear()


def _leave(crew: Sequence[Worker]) -> None:
    for worker in crew:
        try:
            worker.leave()
        except TryLater as error:
            log.warning("the archive in hand waits until its lease ends", reason=error.reason)


def forget(ledger: Ledger, keep: ObjectStore, age_s: float) -> int:
    """Removes the archives that ended longer than age_s ago, with their bytes; how many. Blocks; raises TryLater.

    Several may do so at once.
    """
    gone = 0
    while True:
        with ledger.read() as session:
            old = archives.ended_before(session, age_s, AT_ONCE)
        if not old:
            return gone
        for _, stored in old:
            keep.remove(stored)
        with ledger.write() as session:
            archives.forget(session, [request_id for request_id, _ in old])
        gone += len(old)


def _remove(ledger: Ledger, keep: ObjectStore, days: float, stop: threading.Event) -> None:
    """Old archives, every now and then; not in the main loop, whose age is the liveness, for an object store may be slow."""
    while not stop.is_set():
        try:
            metrics.removed_total.labels(kind="archives").inc(forget(ledger, keep, days * 86_400))
        except TryLater as error:
            log.warning("old archives were not removed", reason=error.reason)
        stop.wait(FORGET_EVERY_S)


def _measure(ledger: Ledger, health: Health) -> None:
    try:
        with ledger.read() as session:
            states = archives.counts(session)
        health.ready("ledger", True)
    except TryLater as error:
        health.ready("ledger", False, error.reason)
        return
    for state in (archives.WAITING, archives.WORKING, archives.PUBLISHED, archives.FAILED):
        metrics.archives_state.labels(state=state).set(states.get(state, 0))
