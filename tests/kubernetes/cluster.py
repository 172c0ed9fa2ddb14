"""A cluster of its own on this machine, by the rig's scripts (up, down, load), and how one speaks to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NAMESPACES = ("events", "backing")
SHOWN_LINES = 12
LOOK_EVERY_S = 0.5

Plain = dict[str, Any]


class Failed(Exception):
    """What did not come about; the text has the state of the pods where there are some."""


class Cluster:
    """One node. Every call blocks; a command that fails is Failed."""

    def __init__(self, rig: Path, home: Path, seccomp: Path) -> None:
        """rig: folder of the scripts; home: where its programs are (RIG_HOME); seccomp: the node's folder of profiles."""
        self._rig = rig
        self._home = home
        self.crds = rig / "crds"
        self.kubelet_dir = home / "run" / "kubelet"
        self.env = {
            **os.environ,
            "RIG_HOME": str(home),
            "RIG_SECCOMP": str(seccomp),
            "KUBECONFIG": str(home / "run" / "admin.conf"),
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        }
        for program in (rig / "up", home / "bin" / "kubectl", home / "bin" / "helm"):
            if not program.exists():
                raise Failed(f"there is no {program}; the rig's README.md tells how to build it (--rig, --home)")
        for folder in (home, *home.resolve().parents):
            if not folder.stat().st_mode & 0o001:
                raise Failed(
                    f"{folder} is closed to others: pods with users of their own could not start (--home elsewhere)"
                )

    def up(self) -> None:
        """A fresh one, Ready. Failed when one runs already."""
        self._script("build", "images", timeout=120)  # the two of the rig's own, where Docker does not have them
        self._script("up", timeout=300)

    def down(self) -> None:
        """Ends it with all that runs in it."""
        self._script("down", timeout=180)

    def load(self, images: Sequence[str], missing: bool = False) -> None:
        """Copies these from Docker; missing: only those whose names it does not have."""
        self._script("load", *(["--missing"] if missing else []), *images, timeout=900)

    def _script(self, name: str, *arguments: str, timeout: float) -> None:
        run([str(self._rig / name), *arguments], self.env, timeout)

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 60.0) -> str:
        """What kubectl prints; given: its standard input."""
        return run(["kubectl", *arguments], self.env, timeout, given)

    def helm(self, *arguments: str, given: str | None = None, timeout: float = 600.0) -> str:
        """What helm prints."""
        return run(["helm", "-n", "events", *arguments], self.env, timeout, given)

    def get(self, namespace: str, kind: str, *arguments: str) -> list[Plain]:
        """Objects of a kind."""
        text = self.kubectl("-n", namespace, "get", kind, "-o", "json", *arguments)
        return list(json.loads(text)["items"])

    def apply(self, *objects: Plain) -> None:
        """Makes them, or changes them into these."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", given=json.dumps(whole))

    def secret(self, namespace: str, name: str, files: dict[str, str]) -> None:
        """A Secret with these texts."""
        head = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": head, "stringData": files})

    def address(self, namespace: str, service: str) -> str:
        """A Service's IP address, which this machine, as the node, reaches too."""
        return self.kubectl("-n", namespace, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")

    def kill(self, pod: Plain) -> None:
        """kill -9 of the pod's one container, from the node."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        socket = self._home / "run" / "containerd.sock"
        run(["ctr", "-a", str(socket), "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container], self.env, 30)

    def until(self, true: Callable[[], object], what: str | Callable[[], str], seconds: float) -> float:
        """Waits for it and returns how long it took; Failed with what it waited for and the pods' states."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > seconds:
                told = what if isinstance(what, str) else what()
                raise Failed(f"waited {seconds:.0f} s for {told}\n{self.picture()}")
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began

    def settled(self, namespace: str, seconds: float) -> float:
        """Waits until every Deployment, StatefulSet and DaemonSet has all its pods, updated and ready."""
        return self.until(
            lambda: not self._unsettled(namespace),
            lambda: f"all of {namespace} to be ready: {self._unsettled(namespace)}",
            seconds,
        )

    def _unsettled(self, namespace: str) -> str:
        found = []
        for one in self.get(namespace, "deployments,statefulsets"):
            status, wanted = one["status"], one["spec"].get("replicas", 1)
            seen = status.get("observedGeneration", 0) >= one["metadata"]["generation"]
            ready = [status.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "replicas")]
            if not seen or ready != [wanted] * 3:
                found.append(f"{one['metadata']['name']} has {status.get('readyReplicas', 0)} of {wanted}")
        return ", ".join(found)

    def picture(self) -> str:
        """The pods' states, and the last lines of those that are not well."""
        told = []
        for namespace in NAMESPACES:
            for pod in self.get(namespace, "pods"):
                name, state = pod["metadata"]["name"], _state(pod)
                told.append(f"  {namespace}/{name}: {state}")
                if state not in ("ready", "Succeeded"):
                    told += self._words(namespace, name)
        return "\n".join(told)

    def _words(self, namespace: str, pod: str) -> list[str]:
        found = []
        for which in ((), ("--previous",)):
            command = ["kubectl", "-n", namespace, "logs", pod, f"--tail={SHOWN_LINES}", *which]
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=30)
            if done.returncode == 0:
                found += [f"      {line}" for line in done.stdout.splitlines()]
        wanted = ("--field-selector", f"involvedObject.name={pod},type=Warning")
        for event in self.get(namespace, "events", *wanted)[-3:]:
            found.append(f"      event: {event.get('message', '')}")
        return found


def run(command: Sequence[str], env: dict[str, str], timeout: float, given: str | None = None) -> str:
    """The command's standard output. Failed with what it said when it fails or takes longer."""
    try:
        done = subprocess.run(
            command, env=env, input=given, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{_short(command)} has not ended after {timeout:.0f} s") from error
    if done.returncode:
        raise Failed(f"{_short(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}{done.stdout[-4000:]}")
    return done.stdout


def _short(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])[:200]


def ready(pod: Plain) -> bool:
    """Whether it is ready and not being ended."""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _state(pod: Plain) -> str:
    if ready(pod):
        return "ready"
    phase = str(pod["status"].get("phase"))
    if phase == "Succeeded":
        return phase
    words = [phase]
    for one in pod["status"].get("containerStatuses", ()):
        for kind, why in one["state"].items():
            words.append(f"{kind} {why.get('reason', '')} {why.get('message', '')}".strip())
        words.append(f"{one['restartCount']} restarts")
    words += [
        one["message"] for one in pod["status"].get("conditions", ()) if one["status"] == "False" and one.get("message")
    ]
    return "; ".join(words)
