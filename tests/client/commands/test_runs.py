"""eventproc: runs, their logs, versions, replay; against a real registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.records import Outcome, RunError
from tests.made_runs import claim, end, make_runs, printed
from tests.registry_server import Running

from .conftest import Said, Say


def test_runs_are_listed_and_told(eventproc: Say, registry: Running) -> None:
    one, two = make_runs(registry, registry.register(name="peaks").handler, 2)
    lease = claim(registry, one)
    end(
        registry,
        lease,
        Outcome.FAILED,
        error=RunError("KeyError", "no IA", "Traceback\nKeyError: no IA"),
        log="looking\n",
    )

    (failed,) = eventproc("runs", "--state", "failed", "--json").json()
    assert (failed["id"], failed["error"], failed["handler"]) == (one, "KeyError: no IA", "peaks")
    lines = eventproc("runs", "--handler", "peaks", "--since", "1h").out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("queued (UTC)")
    told = eventproc("run", one)
    assert told.code == 0
    assert "KeyError: no IA" in told.out and "looking" in told.out
    assert eventproc("run", one, "--json").json()["run"]["state"] == "failed"
    newest = json.loads(eventproc("run", "peaks", "--json").out)["run"]["id"]
    assert newest in (one, two)
    assert eventproc("runs", "--handler", "nothing").code == 5


def test_logs_are_printed_and_followed(eventproc: Say, registry: Running) -> None:
    (one,) = make_runs(registry, registry.register(name="peaks").handler)
    lease = claim(registry, one)
    printed(registry, lease, 0, "first\n")

    assert eventproc("logs", one).out == "first\n"
    end(registry, lease, log="first\nsecond\n")
    assert eventproc("logs", "-f", "peaks").out == "first\nsecond\n"
    assert eventproc("logs", one, "--json").json() == {"id": one, "log": "first\nsecond\n"}


def test_a_handlers_life_from_the_command_line(eventproc: Say, registry: Running, peaks: Path) -> None:
    for limit in ("2m", "3m"):
        said = eventproc("register", f"{peaks}:peaks", "--timeout", limit, "--retries", "1", "--notify", "failures")
        assert said.code == 0, said.err
    assert "note: nobody gets an email" in said.out

    assert [one["options"]["timeout"] for one in eventproc("versions", "peaks", "--json").json()] == [180, 120]
    assert eventproc("source", "peaks").out.startswith("def peaks(DataSets, **kwargs):")
    assert (
        eventproc("rollback", "peaks", "0").out == "handler 1 (peaks) is version 2 now, which is what version 0 was\n"
    )
    assert eventproc("pause", "peaks").out == "handler 1 (peaks) paused\n"
    assert eventproc("handlers").out.splitlines()[1].endswith("paused")
    assert eventproc("resume", "1").out == "handler 1 (peaks) resumed\n"
    assert eventproc("rekey", "--json").json() == {"handlers": 1, "resumed": []}


def test_a_replay_from_the_command_line(eventproc: Say, registry: Running) -> None:
    make_runs(registry, registry.register(name="peaks").handler, 2)

    dry = eventproc("replay", "peaks", "--since", "1h", "--dry-run")
    assert dry.err == "2 runs would be made; nothing was\n"
    assert len(dry.out.splitlines()) == 3
    assert len(eventproc("replay", "peaks", "--since", "1h", "--json").json()) == 2
    assert len(eventproc("runs", "--json").json()) == 4


def test_a_run_without_files_downloads_nothing(eventproc: Say, registry: Running) -> None:
    (one,) = make_runs(registry, registry.register(name="peaks").handler)
    lease = claim(registry, one)

    assert eventproc("download", one).err == f"{one} has no files so far: it has not ended\n"
    end(registry, lease)
    assert eventproc("download", one) == Said(0, "", f"{one} has no files\n")
    assert eventproc("download", one, "--json") == Said(0, "[]\n", "")


@pytest.mark.parametrize("words", ["--help", "logs --help", "completion bash", "handlers", "logs peaks"])
def test_a_reader_that_has_had_enough_ends_it_as_it_ends_other_tools(
    eventproc: Say, registry: Running, words: str
) -> None:
    (one,) = make_runs(registry, registry.register(name="peaks").handler)
    end(registry, claim(registry, one), log="first\n")
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "btrdbextras", *words.split()], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (141, b"")
