"""The chart in the cluster: installed, tried by `helm test`, upgraded, uninstalled."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import yaml

from devstack.stack import ROOT
from tests.kubernetes.cluster import Cluster, Failed, Plain

CHART = ROOT / "deploy" / "helm" / "eventproc"
VALUES = ROOT / "deploy" / "helm" / "example-values.yaml"
NAME = "eventproc"
PATIENCE_S = 900.0
HOOKS = ("--timeout", "14m")
FULL = "level full, in a namespace at level privileged"
MADE_ONCE = {"eventproc-seal", "eventproc-service-token", "eventproc-registry-tls"}
SWITCHES: dict[str, Plain] = {
    "HorizontalPodAutoscalers": {"autoscaling": {"kind": "hpa"}},
    "KEDA's ScaledObjects": {"autoscaling": {"kind": "keda", "keda": {"prometheus": "http://prometheus.monitoring.svc:9090"}}},
    "PodMonitor, PrometheusRule, dashboard": {
        "monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboard": {"enabled": True}}
    },
    "routes, downloads": {
        "route": {"kind": "Ingress", "host": "btrdb.example.com"},
        "uploads": {"ingress": {"enabled": True, "host": "uploads.example.com"}},
        "downloads": {"enabled": True, "host": "downloads.example.com"},
    },
}  # fmt: skip


class Release:
    """It, in the namespace `events`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """folder: for values files."""
        self._cluster = cluster
        self._folder = folder
        self._values: list[Path] = [VALUES]

    def install(self) -> None:
        """helm install; the hooks have run when it returns, the stations need not be there yet."""
        self._cluster.helm("install", NAME, str(CHART), *HOOKS, *self._files(), timeout=PATIENCE_S)

    def upgrade(self, values: Plain) -> None:
        """helm upgrade with these values on top of those before; returns when all is rolled out."""
        self._values.append(self._file(values))
        self._cluster.helm("upgrade", NAME, str(CHART), *HOOKS, *self._files(), timeout=PATIENCE_S)
        self._cluster.settled("events", PATIENCE_S)

    def test(self) -> str:
        """helm test; its last line."""
        said = self._cluster.helm("test", NAME, "--logs", "--timeout", "5m")
        return next((line for line in reversed(said.splitlines()) if line.strip()), "")

    def is_accepted(self, values: Plain) -> int:
        """How many objects the API takes, with these values on top, in a trial that changes nothing. Raises Failed."""
        made = self._cluster.helm(
            "template", NAME, str(CHART), "--no-hooks", *self._files(), "-f", str(self._file(values))
        )
        said = self._cluster.kubectl("-n", "events", "apply", "--dry-run=server", "-f", "-", given=made)
        return len(said.splitlines())

    def reconcile(self) -> str:
        """The last line of eventproc-admin in a dispatcher's pod. Raises Failed when the books do not add up."""
        said = self._in_pod("dispatcher", "eventproc-admin", "reconcile", "--since", "24h")
        return said.strip().splitlines()[-1]

    def closed(self) -> str:
        """What a pod that is no executor meets at the port that gives out keys. Raises Failed when it is let in."""
        code = "import socket; socket.create_connection(('eventproc-registry', 4413), 5)"
        try:
            self._in_pod("notifier", "python", "-c", code)
        except Failed as error:
            if "timed out" in str(error):
                return "a notifier's connection timed out"
            raise
        raise Failed("a notifier reaches the executors' port")

    def levels(self) -> dict[str, Plain]:
        """What each sandbox level takes, as values."""
        installer = {"enabled": True, "namespace": "kube-system", "kubeletDir": str(self._cluster.kubelet_dir)}
        kinds: dict[str, Plain] = {
            "level pod, hostUsers: false": {"level": "pod", "hostUsers": False},
            "level namespaces, Localhost profile by the DaemonSet": {
                "level": "namespaces",
                "hostUsers": True,
                "installer": installer,
            },
            "level namespaces, hostUsers: false": {"level": "namespaces", "hostUsers": False},
            FULL: {"level": "full", "hostUsers": False},
        }
        return {what: {"executor": {"sandbox": sandbox}} for what, sandbox in kinds.items()}

    def stands(self) -> str:
        """The sandbox level and layers that an executor's metrics tell."""
        code = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
        said = self._in_pod("executor-py3-11", "python", "-c", code)
        level = re.findall(r'^eventproc_sandbox_level\{.*level="(\w+)".*\} 1', said, re.MULTILINE)
        layers = re.findall(r'^eventproc_sandbox_layer\{layer="(\w+)".*\} 1', said, re.MULTILINE)
        return f"{', '.join(level)} with {', '.join(layers)}"

    def _in_pod(self, deployment: str, *command: str) -> str:
        return self._cluster.kubectl("-n", "events", "exec", f"deployment/{NAME}-{deployment}", "--", *command)

    def uninstall(self) -> str:
        """helm uninstall; what it leaves, which is what it should. Raises Failed."""
        self._cluster.helm("uninstall", NAME, "--wait", "--timeout", "5m")
        mine = ("-l", f"app.kubernetes.io/instance={NAME}")
        kinds = "deployments,daemonsets,services,configmaps,networkpolicies,poddisruptionbudgets,serviceaccounts,jobs,secrets"
        left = {one["metadata"]["name"] for one in self._cluster.get("events", kinds, *mine)}
        if left != MADE_ONCE:
            raise Failed(f"helm uninstall should leave {sorted(MADE_ONCE)}; there are {sorted(left)}")
        return ", ".join(sorted(left))

    def _files(self) -> list[str]:
        return [part for path in self._values for part in ("-f", str(path))]

    def _file(self, values: Plain) -> Path:
        path = self._folder / f"values-{uuid.uuid4().hex[:8]}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path
