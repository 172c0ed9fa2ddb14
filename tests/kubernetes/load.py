"""Archives through the HTTP ingress, one every few seconds, whatever happens to those who take them."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import httpx

from examples.make_comtrade import fault_archive
from tests.kubernetes.cluster import Failed

RARE = 0.1
TAKEN = (200, 202)


class Ingress:
    """The HTTP ingress, with a user's key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key

    def send(self, archive: bytes, name: str, tags: tuple[str, ...], patience_s: float, **more: str) -> str:
        """The RequestID. What is refused or cut off for the moment is sent again as the same upload; blocks. Raises Failed."""
        once, deadline, told = str(uuid.uuid4()), time.monotonic() + patience_s, ""
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": once}
        while time.monotonic() < deadline:
            try:
                answer = httpx.post(
                    f"{self._url}/v1/archives", params={"tags": ",".join(tags), "name": name, **more}, content=archive,
                    headers=headers, timeout=30.0,
                )  # fmt: skip
            except httpx.TransportError as error:
                told = str(error)
            else:
                if answer.status_code in TAKEN:
                    return str(answer.json()["RequestID"])
                told = f"{answer.status_code} {answer.text}"
                if answer.status_code < 500:
                    raise Failed(f"the ingress does not take {name}: {told}")
            time.sleep(0.5)
        raise Failed(f"the ingress has not taken {name} within {patience_s:.0f} s: {told}")


class Load:
    """In a thread of its own until stop(); events: RequestID -> tags of what the ingress has taken."""

    def __init__(self, ingress: Ingress, folder: Path, every_s: float, patience_s: float) -> None:
        self._ingress = ingress
        self._folder = folder
        self._every_s = every_s
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._failed: Failed | None = None
        self.events: dict[str, tuple[str, ...]] = {}

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """No more, once the last has been taken. Raises Failed when one was not."""
        self._stop.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        number, draw = 0, random.Random(7)
        try:
            while not self._stop.wait(self._every_s):
                number += 1
                path = self._folder / "load.zip"
                fault_archive(path, seconds=0.2)
                tags = ("every", "rare") if draw.random() < RARE else ("every",)
                request_id = self._ingress.send(path.read_bytes(), f"load-{number}.zip", tags, self._patience_s)
                self.events[request_id] = tags
        except Failed as error:
            self._failed = error
