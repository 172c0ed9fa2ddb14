"""Real servers for tests from their Docker images, by testcontainers, where a Docker engine answers."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from devstack import kafka, versions

os.environ.setdefault(
    "TESTCONTAINERS_RYUK_DISABLED", "true"
)  # one image less to pull; the fixtures stop what they start

PATIENCE_S = 120.0
POSTGRES_IMAGE = versions.POSTGRES_IMAGE
KAFKA_IMAGE = versions.KAFKA_IMAGE


@functools.cache
def offered(image: str) -> bool:
    """Whether a Docker engine answers and has the image, or can pull it; blocks while it pulls."""
    if shutil.which("docker") is None:
        return False
    answers = _docker("info") and (_docker("image", "inspect", image) or _docker("pull", "-q", image))
    return bool(answers)


def _docker(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0


@contextmanager
def postgres() -> Iterator[str]:
    """SQLAlchemy's URL of a PostgreSQL server that runs for the block."""
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer(POSTGRES_IMAGE, driver="psycopg") as server:
        yield server.get_connection_url()


@contextmanager
def apache_kafka() -> Iterator[str]:
    """host:port of a broker that runs for the block. testcontainers' own KafkaContainer does not take this image."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.docker_client import DockerClient

    container, port = DockerContainer(KAFKA_IMAGE), _free_port()
    host = DockerClient().host()  # the broker must know before it starts where clients will find it
    listeners = _settings("0.0.0.0", 9092, "127.0.0.1", 9093, advertised=f"{host}:{port}")
    with container.with_envs(**listeners).with_bind_ports(9092, port):
        _until_it_answers(f"{host}:{port}")
        yield f"{host}:{port}"


def _settings(host: str, port: int, controller_host: str, controller_port: int, advertised: str) -> dict[str, str]:
    """Environment of the apache/kafka image for a broker that is alone; advertised: host:port that clients are told."""
    # by its clients' address it does not find itself within the container, and without itself it makes no transaction
    own = f"OWN://{controller_host}:{controller_port + 1}"
    return {
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_NODE_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@{controller_host}:{controller_port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://{host}:{port},{own},CONTROLLER://{controller_host}:{controller_port}",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{advertised},{own}",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "OWN",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,OWN:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_HEAP_OPTS": "-Xmx512m",
        **{"KAFKA_" + name.upper().replace(".", "_"): str(value) for name, value in kafka.SINGLE.items()},
    }


def _until_it_answers(bootstrap: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not kafka.answers(bootstrap):
        assert time.monotonic() < deadline, f"no Kafka answered at {bootstrap} within {PATIENCE_S:.0f} s"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
