"""What is done to the release while it works: pods killed, executors drained from their node, an upgrade rolled."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field

from tests.chaos.havoc import Deed
from tests.kubernetes.cluster import Cluster, Failed, Plain, ready
from tests.kubernetes.logs import COMPONENT

STATIONS = ("ctingress", "dispatcher", "executor", "notifier", "registry")
GRACE_S = 30.0
BACK_S = 600.0


@dataclass
class Blows:
    """Deals them; deeds: what was done to which pod."""

    cluster: Cluster
    deeds: list[Deed] = field(default_factory=list)

    def kill(self, station: str) -> str:
        """Takes one of the station's pods away at once; its name."""
        pod = self._one(station)
        name = str(pod["metadata"]["name"])
        self._note(pod, station, "kill")
        self.cluster.kubectl("-n", "events", "delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
        return name

    def crash(self, station: str) -> str:
        """kill -9 of a container of the station; the pod's name, once the container is being started anew in it."""
        pod = self._one(station)
        name, before = str(pod["metadata"]["name"]), _restarts(pod)
        self._note(pod, station, "kill")
        self.cluster.kill(pod)

        def noticed() -> bool:
            return any(_restarts(one) > before for one in self._pods(station) if one["metadata"]["name"] == name)

        self.cluster.until(noticed, f"the container of {name} to start again", BACK_S)
        return name

    def kill_backing(self, name: str) -> float:
        """Kills the one pod of Kafka or PostgreSQL a second after it was told; for how long there was none that was ready."""
        (pod,) = self.cluster.get("backing", "pods", "-l", f"app={name}")
        self._note(pod, name, "kill")
        self.cluster.kubectl("-n", "backing", "delete", "pod", pod["metadata"]["name"], "--grace-period=1")
        return self.cluster.settled("backing", BACK_S)

    def back(self) -> float:
        """Waits until every station has all its pods again; for how long."""
        return self.cluster.settled("events", BACK_S)

    def drain(self) -> str:
        """kubectl drain of the node's executors. Uncordons it when no room is left, as if another node had come; what was seen."""
        old = self._pods("executor")
        (node,) = {pod["spec"]["nodeName"] for pod in old}
        command = [
            "kubectl",
            "drain",
            node,
            f"--pod-selector={COMPONENT}=executor",
            "--delete-emptydir-data",
            "--timeout=600s",
        ]
        for pod in old:
            self._note(pod, "executor", "term", GRACE_S + 600)
        drain = subprocess.Popen(
            command, env=self.cluster.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            waited = self.cluster.until(lambda: self._pending(drain), "an executor's successor without a node", BACK_S)
            there = sum(ready(pod) for pod in self._pods("executor"))
            if there < len(old) - 1:
                raise Failed(f"the disruption budget should keep {len(old) - 1} executor; there is {there}")
            self.cluster.kubectl("uncordon", node)
            said, _ = drain.communicate(timeout=600)
        finally:
            drain.kill()
            self.cluster.kubectl("uncordon", node)
        if drain.returncode:
            raise Failed(f"kubectl drain ended with {drain.returncode}:\n{said}")
        refused = said.count("violate the pod's disruption budget")
        return f"{len(old)} evicted one after the other, the budget refused {refused} times; a successor waited after {waited:.0f} s"

    def rolls(self) -> None:
        """An upgrade is about to end every pod in its turn."""
        for station in STATIONS:
            for pod in self._pods(station):
                self._note(pod, station, "term", BACK_S)

    def _pending(self, drain: subprocess.Popen[str]) -> bool:
        if drain.poll() is not None:
            raise Failed(f"kubectl drain ended with {drain.returncode}: {drain.communicate()[0]}")
        return any("nodeName" not in pod["spec"] for pod in self._pods("executor"))

    def _note(self, pod: Plain, station: str, how: str, for_s: float = 0.0) -> None:
        self.deeds.append(Deed(time.time(), str(pod["metadata"]["name"]), how, for_s, station))

    def _one(self, station: str) -> Plain:
        return next(pod for pod in self._pods(station) if ready(pod))

    def _pods(self, station: str) -> list[Plain]:
        return self.cluster.get("events", "pods", "-l", f"{COMPONENT}={station}")


def _restarts(pod: Plain) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])
