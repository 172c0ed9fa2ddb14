"""What several folders' tests share: a ledger, one real Kafka for the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from devstack import kafka
from devstack.supervisor import Process, Supervisor
from ledger import Ledger
from tests import containers
from tests.migrated import migrated
from tests.secure_kafka import SecureKafka, free_ports, loopback, secure_kafka

FIRST = "road"  # the longest of all that one worker must do


def pytest_itemcollected(item: pytest.Item) -> None:
    """What shares a stack or a broker goes to one worker: a file, and the whole of tests/road."""
    item.add_marker(pytest.mark.xdist_group(FIRST if _place(item).parts[0] == FIRST else str(_place(item))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker begins with the road."""
    items.sort(key=lambda item: _place(item).parts[0] != FIRST)


def _place(item: pytest.Item) -> Path:
    return item.path.relative_to(Path(__file__).parent)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A migrated ledger in SQLite; folders whose tests need another have their own."""
    opened = Ledger.open(migrated(tmp_path / "ledger.db"), [Fernet.generate_key().decode()])
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real broker: KAFKA_BOOTSTRAP_SERVERS when that is set; else from its image; else as a stack has it."""
    if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS") and containers.offered(containers.KAFKA_IMAGE):
        with containers.apache_kafka() as bootstrap:
            yield bootstrap
        return
    address = loopback()
    port, controller_port = free_ports(address, 2)
    folder = tmp_path_factory.mktemp("kafka")
    broker = kafka.command(folder / "state", address, port, controller_port)
    supervisor = Supervisor(folder)
    if broker.argv:
        supervisor.add(Process("kafka", broker.argv, {**os.environ, **broker.env}, ready=broker.ready))
    supervisor.start(lambda text: None)
    yield broker.bootstrap
    supervisor.stop()


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A real broker with TLS, SASL and ACLs; not one that is there already, for that has other users."""
    if kafka.way() == "given":
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS names a Kafka whose users are not the tests'")
    with secure_kafka(tmp_path_factory.mktemp("secure-kafka")) as broker:
        yield broker
