"""What stations say, kept while their pods come and go: one file for each life of a container."""

from __future__ import annotations

import subprocess
import threading
from collections import defaultdict
from pathlib import Path

from tests.kubernetes.cluster import Cluster, Failed

EVERY_S = 0.5
COMPONENT = "app.kubernetes.io/component"


class Logs:
    """Follows the logs of all stations until close(): folder/<station>-<pod>-<restarts>.log."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """folder: made when it is missing."""
        folder.mkdir(exist_ok=True)
        self._cluster = cluster
        self._folder = folder
        self._followers: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more. What two lives of a pod are both said to have said, for the next had begun already, is the first's."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        for follower in self._followers.values():
            follower.terminate()
            follower.wait()
        heard: dict[str, set[str]] = defaultdict(set)
        for life in self._followers:
            path, pod = self._folder / f"{life}.log", life.rpartition("-")[0]
            fresh = [line for line in path.read_text(errors="replace").splitlines() if line not in heard[pod]]
            heard[pod].update(fresh)
            path.write_text("".join(f"{line}\n" for line in fresh))

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                pods = self._cluster.get("events", "pods", "-l", COMPONENT)
            except Failed:  # the API may be slow for a moment
                continue
            for pod in pods:
                for one in pod["status"].get("containerStatuses", ()):
                    if "running" in one["state"]:
                        station, name = pod["metadata"]["labels"][COMPONENT], pod["metadata"]["name"]
                        self._follow(f"{station}-{name}-{one['restartCount']}", name)

    def _follow(self, life: str, pod: str) -> None:
        known = self._followers.get(life)
        path = self._folder / f"{life}.log"
        if known is not None and (known.poll() is None or path.stat().st_size):
            return  # a follower that could say nothing yet tries again
        command = ["kubectl", "-n", "events", "logs", "-f", pod]
        with path.open("wb") as out:
            self._followers[life] = subprocess.Popen(
                command, env=self._cluster.env, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True
            )
