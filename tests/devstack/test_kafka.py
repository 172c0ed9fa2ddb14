"""Which Kafka a stack gets: the order, and what is said when there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from devstack import kafka

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, Maven, Docker, fetched jars or a Kafka in the environment; the folder is its PATH."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("devstack.kafka.JARS", tmp_path / "jars")
    return tmp_path


def a_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def a_java(folder: Path, version: str) -> None:
    a_program(folder, "java", f"echo 'openjdk version \"{version}\"' >&2")


def test_without_any_way_all_three_are_named(bare: Path) -> None:
    with pytest.raises(kafka.NoKafka) as told:
        kafka.way()

    for word in ("KAFKA_BOOTSTRAP_SERVERS=host:port", "Java 17", "Maven", "Docker"):
        assert word in str(told.value)


def test_what_is_there_but_will_not_do_is_named(bare: Path) -> None:
    a_java(bare, "11.0.2")
    a_program(bare, "docker", "exit 1")

    with pytest.raises(kafka.NoKafka, match=r"Java 11, Maven none.*engine does not answer"):
        kafka.way()


def test_the_order_is_given_then_java_then_docker(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(bare, "docker", "exit 0")
    assert kafka.way() == "docker"

    a_java(bare, "17.0.1")
    assert kafka.way() == "docker", "Java alone brings no Kafka"
    a_program(bare, "mvn", "exit 0")
    assert kafka.way() == "java"

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    assert kafka.way() == "given"


def test_a_given_kafka_that_does_not_answer_is_told_before_anything_starts(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("devstack.kafka.GIVEN_S", 0.0)

    with pytest.raises(kafka.NoKafka, match=r"KAFKA_BOOTSTRAP_SERVERS is 127\.0\.0\.1:1, but no Kafka answered"):
        kafka.fetch(lambda text: None)


def test_when_maven_fails_its_last_words_are_told(bare: Path) -> None:
    a_java(bare, "21")
    a_program(bare, "mvn", "echo 'Could not resolve kafka_2.13'; exit 1")

    with pytest.raises(kafka.NoKafka, match=r"(?s)Maven could not fetch Kafka.*Could not resolve kafka_2\.13"):
        kafka.fetch(lambda text: None)


@pytest.mark.parametrize("made", ["none", "folder", "text"])
def test_the_demo_refuses_a_file_that_is_no_zip_before_it_starts_anything(made: str, tmp_path: Path) -> None:
    path = tmp_path / "given.zip"
    if made == "folder":
        path.mkdir()
    elif made == "text":
        path.write_text("no zip")

    ended = subprocess.run(
        [sys.executable, "-m", "devstack", "--state", str(tmp_path / "state"), "demo", "--file", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert str(path) in ended.stderr and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert not (tmp_path / "state").exists()
