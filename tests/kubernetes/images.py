"""The images of the trial: those of the project as deploy/images/build makes them, Kafka's, and the companions."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from deploy.release import present
from devstack.layout import RUNTIME
from devstack.stack import ROOT
from devstack.versions import KAFKA, KAFKA_IMAGE
from tests.kubernetes.cluster import Failed, run

HERE = Path(__file__).parent
PYTHON_IMAGE = "python:3.11-slim-bookworm"
BUILD_S = 1800.0


@dataclass(frozen=True)
class Images:
    """Their names. version: the tag of the project's own."""

    version: str
    companions: str

    @classmethod
    def of_this_release(cls) -> Images:
        """As pyproject.toml's version names them."""
        return cls(present(ROOT), f"eventproc-companions:{present(ROOT)}")

    def own(self, tag: str) -> list[str]:
        """The project's two with a tag."""
        return [f"eventproc:{tag}", f"eventproc-executor:{tag}-{RUNTIME}"]

    def all(self) -> list[str]:
        """All that the cluster needs."""
        return [*self.own(self.version), self.companions, KAFKA_IMAGE]

    def build(self, standins: Path) -> None:
        """Builds them; base images come from the engine, from a registry, or else from the program standins. Raises Failed."""
        for image in (PYTHON_IMAGE, KAFKA_IMAGE):
            _base(image, standins)
        run([str(ROOT / "deploy" / "images" / "build"), RUNTIME], dict(os.environ), BUILD_S)
        flags = os.environ.get("BUILD_FLAGS", "").split()
        stations = f"STATIONS={self.own(self.version)[0]}"
        command = ["docker", "build", *flags, "--build-arg", stations, "-t", self.companions, "-"]
        done = subprocess.run(command, input=_context(), capture_output=True, check=False, timeout=BUILD_S)
        if done.returncode:
            raise Failed(f"docker build of {self.companions}: {(done.stdout + done.stderr).decode()[-2000:]}")

    def tag(self, tag: str) -> list[str]:
        """The project's two under another tag."""
        for old, new in zip(self.own(self.version), self.own(tag), strict=True):
            run(["docker", "tag", old, new], dict(os.environ), 60)
        return self.own(tag)


def _base(image: str, standins: Path) -> None:
    def docker(*arguments: str) -> bool:
        return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0

    if not docker("version"):
        raise Failed("no Docker engine answers: is dockerd running?")
    if docker("image", "inspect", image) or docker("pull", "-q", image):
        return
    if not standins.exists():
        raise Failed(f"there is no image {image}: it cannot be pulled, and there is no {standins} (--standins)")
    run([str(standins), image], {**os.environ, "KAFKA_VERSION": KAFKA}, BUILD_S)


def _context() -> bytes:
    """A tar that Docker knows for one by its first block, which is not so for pax."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(HERE / "companions.Dockerfile", "Dockerfile")
        tar.add(ROOT / "requirements" / "all.txt", "requirements/all.txt")
        tar.add(ROOT / "devstack", "devstack", filter=lambda one: None if "__pycache__" in one.name else one)
    return packed.getvalue()
