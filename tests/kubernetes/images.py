"""The images of the trial: those of the project as deploy/images/build makes them, Kafka's, and the companions."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.release import present
from devstack.layout import RUNTIME
from devstack.stack import ROOT
from devstack.versions import KAFKA, KAFKA_IMAGE
from tests.kubernetes.cluster import Failed, run

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
        run([str(ROOT / "deploy" / "images" / "build"), RUNTIME, "companions"], dict(os.environ), BUILD_S)

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
