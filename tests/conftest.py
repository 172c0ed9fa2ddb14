"""What several folders' tests share: one real Kafka for the session."""

import os
import random
import socket
from collections.abc import Iterator

import pytest

from devstack import kafka
from devstack.supervisor import Process, Supervisor
from tests import containers


def _free_ports(address: str, count: int) -> list[int]:
    held = []
    for _ in range(count):
        one = socket.socket()
        one.bind((address, 0))
        held.append(one)
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real broker: KAFKA_BOOTSTRAP_SERVERS when that is set; else from its image; else as a stack has it."""
    if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS") and containers.offered(containers.KAFKA_IMAGE):
        with containers.apache_kafka() as bootstrap:
            yield bootstrap
        return
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
    port, controller_port = _free_ports(address, 2)
    folder = tmp_path_factory.mktemp("kafka")
    broker = kafka.command(folder / "state", address, port, controller_port)
    supervisor = Supervisor(folder)
    if broker.argv:
        supervisor.add(Process("kafka", broker.argv, {**os.environ, **broker.env}, ready=broker.ready))
    supervisor.start(lambda text: None)
    yield broker.bootstrap
    supervisor.stop()
