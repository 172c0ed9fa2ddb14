"""deploy/compose.yaml brought up with the images of deploy/images/, as one machine's operator has it, and looked into."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deploy import compose_secrets
from deploy.release import ROOT, present
from devstack import versions
from devstack.addresses import free_address
from tests import containers

STATIONS = ("registry", "dispatcher", "notifier", "ctingress", "downloads", "executor")
IMAGES = {"stations": f"eventproc:{present(ROOT)}", "executor": f"eventproc-executor:{present(ROOT)}-py3.11"}
NEEDED = ("python:3.11-slim-bookworm", versions.KAFKA_IMAGE)
BUILD_S = 1500.0
PATIENCE_S = 180.0

T = TypeVar("T")


def lacking() -> str:
    """What keeps containers from being tried here, or nothing; blocks while images are pulled."""
    for image in NEEDED:
        if not containers.offered(image):
            return f"no Docker engine answers that has or can pull {image} (make engine)"
    return "" if _compose() else "there is neither docker compose nor docker-compose (make engine)"


def build() -> None:
    """The images of this tree under their own names, from the engine's cache where nothing changed."""
    command = [str(ROOT / "deploy" / "images" / "build"), "py3.11", "companions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_S)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def docker(*arguments: str, told: str | None = None) -> str:
    """What `docker ...` prints, its standard error behind it; fails when that is refused."""
    done = subprocess.run(["docker", *arguments], input=told, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def wait_for(look: Callable[[], T | None], what: Callable[[], str]) -> T:
    """What look() gives once it gives something; fails with what()."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what()}"
        time.sleep(0.2)
    return found


class Composed:
    """One project of compose, with a trial's mail server and BTrDB. address: where it listens; keys: user -> API key."""

    def __init__(self, folder: Path) -> None:
        """folder: gets secrets and settings."""
        self.address = free_address(4411, 4412, 4415, 4416)
        said = subprocess.run(
            ["python", "-m", "deploy.compose_secrets", self.address, "--folder", str(folder), "--trial"],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        self.keys = dict(re.findall(r"^API key of (\w+): (\w+)$", said, re.MULTILINE))
        self.ca = folder / "secrets" / "tls" / "ca.pem"
        self.project = f"eventproc-test-{uuid.uuid4().hex[:8]}"
        self._settings = folder / ".env"
        with self._settings.open("a") as out:
            out.write(f"LISTEN_ADDRESS={self.address}\n")

    def compose(self, *arguments: str) -> str:
        """What compose prints; fails when it is refused."""
        files = ["compose.yaml", "compose.trial.yaml"]
        if not containers.offered(versions.POSTGRES_IMAGE):
            files.append("../tests/deploy/postgresql.yaml")
        command = [*_compose(), "--env-file", str(self._settings), "-p", self.project]
        command += [part for file in files for part in ("-f", file)] + list(arguments)
        done = subprocess.run(command, cwd=ROOT / "deploy", capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self) -> None:
        """Starts what does not run; returns when each station is healthy."""
        self.compose("up", "-d")
        for station in STATIONS:
            self.healthy(station)

    def down(self) -> None:
        """Ends it, with all that it kept."""
        self.compose("down", "-v", "-t", "10")

    def healthy(self, station: str) -> None:
        """Waits until its health check, which is its readiness, says so."""
        wait_for(
            lambda: self.state(station)["Health"]["Status"] == "healthy",
            lambda: f"{station} to be healthy: {self.state(station)} {self.logs(station)[-2000:]}",
        )

    def container(self, service: str) -> str:
        """Its id."""
        label = f"label=com.docker.compose.project={self.project}"
        return docker("ps", "-aq", "--filter", label, "--filter", f"label=com.docker.compose.service={service}").strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """All that the engine knows of it."""
        return dict(json.loads(docker("inspect", self.container(service)))[0])

    def state(self, service: str) -> dict[str, Any]:
        """How it goes."""
        return dict(self.inspect(service)["State"])

    def logs(self, service: str) -> str:
        """All that it has said."""
        return docker("logs", self.container(service))

    def python(self, service: str, script: str) -> str:
        """What the script prints in its container."""
        return docker("exec", "-i", self.container(service), "python", "-", told=script)

    def http(self, user: str) -> httpx.Client:
        """The ingress, as a user."""
        return httpx.Client(
            base_url=f"https://{self.address}:4415",
            headers={"Authorization": f"Bearer {self.keys[user]}"},
            verify=ssl.create_default_context(cafile=str(self.ca)),
            timeout=60.0,
        )


def _compose() -> list[str]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    return [found] if found else []


USER = compose_secrets.USER
