"""A real Kafka on this machine: one that is there already, else Apache Kafka by Maven and Java, else its image by Docker."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from devstack import versions
from schemas.errors import TryLater
from stream.kafka import KafkaBroker
from stream.settings import StreamSettings

ROOT = Path(__file__).resolve().parent.parent
JARS = ROOT / ".cache" / f"kafka-{versions.KAFKA}"
PORT, CONTROLLER_PORT = 9092, 9093
HEAP = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-Xshare:auto"]
JAVA_AT_LEAST = 17
GIVEN_S = 10.0

Progress = Callable[[str], None]


class NoKafka(Exception):
    """There is no way to have a Kafka here; the text names the ways that there are."""


@dataclass(frozen=True)
class KafkaProcess:
    """How to run the broker: argv is empty when one is there already. ready(): whether it answers by now; blocks up to 2 s."""

    argv: list[str]
    env: dict[str, str]
    bootstrap: str
    ready: Callable[[], bool]


def way() -> str:
    """'given' (KAFKA_BOOTSTRAP_SERVERS), 'java' or 'docker'; raises NoKafka naming all three."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return "given"
    java = _java_version()
    if java >= JAVA_AT_LEAST and (_complete() or shutil.which("mvn")):
        return "java"
    docker = shutil.which("docker")
    if docker and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return "docker"
    raise NoKafka(
        "there is no Kafka. One of these is needed: KAFKA_BOOTSTRAP_SERVERS=host:port of one that runs; or Java "
        f"{JAVA_AT_LEAST} or newer and Maven (here: Java {java or 'none'}, Maven {'found' if shutil.which('mvn') else 'none'}); "
        f"or Docker with a running engine (here: {'a client whose engine does not answer' if docker else 'none'})"
    )


def fetch(progress: Progress) -> None:
    """Brings what the chosen way needs to this machine, once, or finds that the given Kafka answers; blocks. Raises NoKafka."""
    chosen = way()
    if chosen == "given":
        _wait_for(os.environ["KAFKA_BOOTSTRAP_SERVERS"])
    elif chosen == "java" and not _complete():
        progress(f"fetching Apache Kafka {versions.KAFKA} from Maven Central (once)")
        _copy_jars(progress)
    elif chosen == "docker":
        there = subprocess.run(["docker", "image", "inspect", versions.KAFKA_IMAGE], capture_output=True, check=False)
        if there.returncode != 0:
            progress(f"pulling {versions.KAFKA_IMAGE} (once)")
            pulled = subprocess.run(
                ["docker", "pull", "-q", versions.KAFKA_IMAGE], capture_output=True, text=True, check=False
            )
            if pulled.returncode != 0:
                raise NoKafka(f"docker could not pull {versions.KAFKA_IMAGE}: {pulled.stderr.strip()}")


def command(
    folder: Path,
    address: str,
    port: int = PORT,
    controller_port: int = CONTROLLER_PORT,
    extra: Mapping[str, object] = MappingProxyType({}),
    options: Sequence[str] = (),
) -> KafkaProcess:
    """How to run one broker in KRaft mode whose state lives in folder and that listens at address:port. Raises NoKafka.

    extra: broker settings beside or instead of the usual ones; options: of its Java machine.
    """
    chosen = way()
    if chosen == "given":
        bootstrap = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        return KafkaProcess([], {}, bootstrap, lambda: answers(bootstrap))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bootstrap = f"{address}:{port}"

    def ready() -> bool:
        return _listens(address, port) and answers(bootstrap)

    env = {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME", "DOCKER_HOST") if name in os.environ}
    properties = _properties(folder, address, port, controller_port, extra)
    if chosen == "docker":
        return KafkaProcess(_docker(folder, properties, options), env, bootstrap, ready)
    if not (folder / "data" / "meta.properties").exists():
        _format(folder, properties, env)
    argv = [_java(), *HEAP, *_logging(folder), *options, "-cp", f"{JARS}/*", "kafka.Kafka", str(properties)]
    return KafkaProcess(argv, env, bootstrap, ready)


def _java() -> str:
    at_home = Path(os.environ.get("JAVA_HOME", "")) / "bin" / "java"
    return str(at_home) if "JAVA_HOME" in os.environ and at_home.exists() else "java"


def _java_version() -> int:
    java = shutil.which(_java())
    if java is None:
        return 0
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    quoted = said.partition('"')[2].partition('"')[0]
    return int(quoted.split(".")[0]) if quoted.split(".")[0].isdigit() else 0


def _complete() -> bool:
    return (JARS / ".complete").exists()


POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>eventproc</groupId><artifactId>kafka-on-this-machine</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_{scala}</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{log4j}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>{log4j}</version></dependency>
  </dependencies>
</project>
"""


def _copy_jars(progress: Progress) -> None:
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with JARS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two stacks may start at once; the other one fetches for both
        if not _complete():
            _maven(progress)


def _maven(progress: Progress) -> None:
    JARS.mkdir(exist_ok=True)
    pom = JARS / "pom.xml"
    pom.write_text(POM.format(scala=versions.KAFKA_SCALA, kafka=versions.KAFKA, log4j=versions.KAFKA_LOG4J))
    log = JARS / "maven.log"
    goal = [
        f"org.apache.maven.plugins:maven-dependency-plugin:{versions.MAVEN_DEPENDENCY_PLUGIN}:copy-dependencies",
        f"-DoutputDirectory={JARS}",
        "-DincludeScope=runtime",
    ]
    with log.open("wb") as out:
        child = subprocess.Popen(["mvn", "-B", "-f", str(pom), *goal], stdout=out, stderr=subprocess.STDOUT)
        seen = 0
        while child.poll() is None:
            time.sleep(1)
            there = len(list(JARS.glob("*.jar"))) or log.read_text(errors="replace").count("Downloaded from")
            if there > seen:
                seen = there
                progress(f"  {there} files")
    if child.returncode != 0:
        raise NoKafka(f"Maven could not fetch Kafka {versions.KAFKA}; the end of {log}:\n{log.read_text()[-1500:]}")
    (JARS / ".complete").touch()


def _properties(folder: Path, address: str, port: int, controller_port: int, extra: Mapping[str, object]) -> Path:
    settings: Mapping[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{address}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{address}:{port},CONTROLLER://{address}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{address}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "false",
        **SINGLE,
        **extra,
    }
    path = folder / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


SINGLE = {
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 8,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    # after kill -9 the new broker waits until the old one's session has ended: 9 s by default
    "broker.session.timeout.ms": 1000,
    "broker.heartbeat.interval.ms": 250,
}
"""What a broker that is alone needs."""


def _logging(folder: Path) -> list[str]:
    config = folder / "log4j2.properties"
    config.write_text(
        "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
        "appender.out.layout.pattern=%d %p %m (%c)%n\nrootLogger.level=WARN\nrootLogger.appenderRef.out.ref=out\n"
    )
    return [f"-Dlog4j2.configurationFile={config}"]


def _format(folder: Path, properties: Path, env: Mapping[str, str]) -> None:
    cluster = uuid.uuid4()
    tool = [_java(), *HEAP, *_logging(folder), "-cp", f"{JARS}/*", "kafka.tools.StorageTool"]
    done = subprocess.run(
        [*tool, "format", "-t", str(cluster), "-c", str(properties)],
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NoKafka(
            f"Kafka's storage could not be formatted in {folder}: {(done.stderr or done.stdout).strip()[-1000:]}"
        )


def _docker(folder: Path, properties: Path, options: Sequence[str]) -> list[str]:
    """The broker in a container that ends when its docker command does, whatever that dies of: its standard input ends then.

    The state folder is there under its own path. The broker runs as root, as images may want; umask 0, so that whoever started
    the stack can remove what it wrote. The image's own entry point would format a formatted folder when it is started again.
    """
    tools = "/opt/kafka/bin"
    script = (
        f"umask 0; test -f {folder}/data/meta.properties || {tools}/kafka-storage.sh format -t {uuid.uuid4()} -c {properties} || exit; "
        f"{tools}/kafka-server-start.sh {properties} & broker=$!; (cat > /dev/null; kill $broker) <&3 & wait $broker"
    )
    return [
        *("docker", "run", "--rm", "-i", "--init", "--network", "host", "--user", "0", "-v", f"{folder}:{folder}"),
        *(
            "-e",
            "KAFKA_HEAP_OPTS=-Xmx512m",
            "-e",
            f"KAFKA_OPTS={' '.join(options)}",
            "--entrypoint",
            "sh",
            versions.KAFKA_IMAGE,
            "-c",
            f"exec 3<&0; {script}",
        ),
    ]


def _wait_for(bootstrap: str) -> None:
    deadline = time.monotonic() + GIVEN_S
    while not answers(bootstrap):
        if time.monotonic() > deadline:
            raise NoKafka(
                f"KAFKA_BOOTSTRAP_SERVERS is {bootstrap}, but no Kafka answered there within {GIVEN_S:.0f} s; correct it, or unset "
                "it to have a Kafka started here"
            )


def answers(bootstrap: str) -> bool:
    """Whether a Kafka answers there now; blocks for a second or two when none does."""
    broker = KafkaBroker(StreamSettings(bootstrap_servers=bootstrap, request_timeout_ms=1000))
    try:
        broker.admin().ping()
    except TryLater:
        return False
    finally:
        broker.close()
    return True


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    fetch(lambda text: print(text, file=sys.stderr))
