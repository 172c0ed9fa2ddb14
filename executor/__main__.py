"""python -m executor: reads settings, wires, runs."""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from executor.ask import Registry
from executor.check import Checker
from executor.execute import Execute
from executor.keep import Keeper
from executor.packages import Packages
from executor.sandbox import filesystem
from executor.sandbox.job import Access, SandboxUnavailable
from executor.sandbox.own_folder import OwnFolder
from executor.sandbox.recycle import Lifetime
from executor.sandbox.runtime import Runtime, SandboxedRuntime
from executor.sandbox.sleep import SleepingRuntime
from executor.settings import ExecutorSettings, available_memory, check_memory
from objectstore import ObjectStore
from schemas.topics import DEAD_LETTERS, RESULTS, tasks_topic
from stream import loop
from stream.connect import open_book, open_broker
from stream.settings import StreamSettings
from telemetry import metrics, traces
from telemetry.health import Health
from telemetry.settings import from_environment
from telemetry.station import begin
from telemetry.threads import Threads


def main() -> int:
    """Runs until SIGTERM or SIGINT, then lets begun runs finish within the grace time."""
    settings = from_environment(ExecutorSettings)
    try:
        interpreters = settings.interpreters()
        check_memory(settings, available_memory())
    except ValueError as error:
        print(f"executor: {error}", file=sys.stderr)
        return 2
    stop, health = begin("executor", needs=("registry", "kafka"))
    try:
        keeper = Keeper(ObjectStore(settings.files) if settings.files else None)
        spool = OwnFolder("eventproc-files-") if settings.files else None
        bounds = settings.bounds(settings.memory_bytes)
        packages = Packages(settings.packages_dir, interpreters, settings.index(), bounds)
        runtimes = _start_runtimes(settings, interpreters, spool.path if spool else None, packages.folder)
    except (SandboxUnavailable, ValueError) as error:
        print(f"executor: {error}", file=sys.stderr)
        return 2
    registry = _registry(settings, tuple(interpreters), health)
    belt = from_environment(StreamSettings)
    broker = open_broker(belt)
    producer = broker.producer()
    book = open_book(belt, broker.admin(), producer)
    written = [("result", RESULTS), ("dead_letter", DEAD_LETTERS)]
    loop.until_ready(lambda: book.publish(written), health, "schemas", stop)
    boot_id = uuid.uuid4().hex
    # a wrong address, CA or token shows now, not with the first run
    loop.until_ready(lambda: _reach(registry, boot_id, settings.name), health, "registry", stop)
    step = Execute(settings, registry, producer, runtimes, boot_id, keeper, health.ready, packages)
    done = threading.Event()
    threads = Threads(stop)
    threads.start("renewer", step.leases.run, done)
    threads.start("follower", step.follow.run, done)
    threads.start("checker", Checker(registry, settings.name, runtimes, packages, settings.memory_bytes).run, stop)
    consumer = broker.consumer([tasks_topic(name) for name in interpreters], settings.group, instance=settings.instance)
    loop.run(
        consumer,
        step,
        dead_letters=producer,
        group=settings.group,
        health=health,
        stop=stop,
        room=step.free_slots,
        wait_for_room=step.wait_for_slot,
        book=book,
        limits=belt.limits(),
    )
    consumer.close()  # others take over our partitions while begun runs go on
    # without the renewer no lease is kept
    step.stop(0.0 if "renewer" in threads.failed else settings.grace_s, health.turn)
    done.set()
    for runtime in runtimes.values():
        runtime.close()
    registry.close()
    broker.close()
    traces.close()
    if spool is not None:
        spool.close()
    return 1 if threads.failed else 0


def _registry(settings: ExecutorSettings, runtimes: tuple[str, ...], health: Health) -> Registry:
    return Registry(
        settings.registry,
        lambda: settings.token_file.read_text().strip(),
        settings.registry_ca,
        settings.registry_timeout_s,
        settings.answer_bytes,
        settings.slots,
        runtimes,
        partial(health.ready, "registry"),
    )


def _reach(registry: Registry, boot_id: str, name: str) -> None:
    registry.renew(boot_id, name, [])


def _start_runtimes(
    settings: ExecutorSettings, interpreters: Mapping[str, Path], spool: Path | None, packages: Path
) -> dict[str, SandboxedRuntime | SleepingRuntime]:
    access = Access(settings.btrdb_endpoint, settings.btrdb_ca_bundle, settings.downloads_endpoint, packages)
    named = {layer.strip() for layer in settings.required_layers.split(",") if layer.strip()}
    runtimes: dict[str, SandboxedRuntime | SleepingRuntime] = {}
    for number, (name, python) in enumerate(interpreters.items()):
        runtime = Runtime(name, python)
        filesystem.check(runtime)
        make = partial(
            SandboxedRuntime,
            runtime,
            access,
            warm=settings.warm,
            lowest=settings.sandbox_level,
            required=named,
            scratch_dir=settings.scratch_dir,
            cgroups=settings.cgroups,
            lifetime=Lifetime(settings.zygote_age_s, settings.zygote_growth_bytes),
            spool=spool,
        )
        if number < settings.resident:
            started = make()
            started.start()
            metrics.sandbox_level.labels(runtime=name, level=started.level).set(1)
            for layer, state in started.layers.items():
                if not state.startswith("left out"):  # by the level, which is told for itself
                    metrics.sandbox_layer.labels(layer=layer).set(1 if state == "on" else 0)
            runtimes[name] = started
        else:
            runtimes[name] = SleepingRuntime(name, make, settings.idle_s)
        metrics.warm_children.labels(runtime=name).set_function(runtimes[name].warm)
        metrics.zygote_bytes.labels(runtime=name).set_function(runtimes[name].zygote_bytes)
    return runtimes


if __name__ == "__main__":
    sys.exit(main())
