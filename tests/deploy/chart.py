"""The chart as real Helm renders it."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "eventproc"
STATIONS = ("registry", "dispatcher", "notifier", "ctingress", "executor", "downloads")
Plain = dict[str, Any]

EXAMPLE: Plain = yaml.safe_load((CHART.parent / "example-values.yaml").read_text())
LEAST: Plain = {
    "kafka": {"bootstrapServers": "kafka.example.com:9092"},
    "ledger": {"existingSecret": "ledger"},
    "btrdb": {"endpoint": "btrdb.example.com:4411"},
    "apiKeys": {"existingSecret": "api-keys"},
    "mail": {"domains": "example.com", "from": "eventproc@example.com", "smtp": {"host": "smtp.example.com"}},
    "storage": {"archives": "s3://bucket/archives"},
}
"""All that has to be given."""

STRIMZI: Plain = {
    "kafka": {
        "bootstrapServers": "platform-kafka-bootstrap:9093", "tls": True, "auth": {"type": "scram-sha-512"},
        "topics": {"mode": "strimzi"}, "strimzi": {"cluster": "platform"},
    },
}  # fmt: skip

MUCH: Plain = {
    "storage": {"files": "s3://bucket/files", "envSecret": "s3"},
    "downloads": {"enabled": True, "host": "downloads.example.com"},
    "executor": {
        "runtimes": {"py3.11": {"slots": 4}, "py3.7": {}},
        "sandbox": {"level": "namespaces", "hostUsers": False, "installer": {"enabled": True, "namespace": "kube-system"}},
    },
    "ledger": {"caSecret": "ledger-ca", "roles": "eventproc_{station}"},
    "btrdb": {"caSecret": "btrdb-ca"},
    "mail": {"smtp": {"user": "eventproc", "passwordSecret": {"name": "smtp"}, "caSecret": "smtp-ca"}},
    "route": {"kind": "Ingress", "host": "btrdb.example.com", "ingress": {"tlsSecret": "btrdb-tls"}},
    "uploads": {"ingress": {"enabled": True, "host": "uploads.example.com"}},
    "autoscaling": {"kind": "keda", "keda": {"prometheus": "http://prometheus.monitoring.svc:9090"}},
    "monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboard": {"enabled": True}},
    "tracing": {"endpoint": "http://collector.monitoring.svc:4317"},
    "test": {"apiKeySecret": {"name": "probe"}},
    "settings": {"EVENTPROC_LEASE_S": 300, "EVENTPROC_KEEP_DEAD_LETTERS_DAYS": 10},
    "jobs": {"nodeSelector": {"pool": "small"}, "tolerations": [{"key": "small", "operator": "Exists"}]},
}  # fmt: skip

OAUTH: Plain = {
    "kafka": {
        "tls": True, "caSecret": {"name": "kafka-ca"}, "schemaRegistryUrl": "https://schemas.example.com:8081",
        "schemaRegistry": {"secret": "schemas", "caSecret": "schemas-ca"},
        "auth": {
            "type": "oauthbearer", "secret": "oauth",
            "oauth": {
                "tokenEndpointUrl": "https://login.example.com:8443/token", "clientId": "eventproc", "scope": "kafka",
                "caSecret": {"name": "login-ca"},
            },
        },
    },
    "autoscaling": {"kind": "hpa"},
}  # fmt: skip

MUTUAL_TLS: Plain = {"kafka": {"auth": {"type": "tls", "secret": "kafka-user"}, "caSecret": {"name": "kafka-ca"}}}


def helm() -> str | None:
    """Where Helm is; None when there is none (make tools)."""
    built = sorted((ROOT / ".cache").glob("helm-v3.*/helm"))
    return str(built[-1]) if built else shutil.which("helm")


class Refused(Exception):
    """What Helm said."""


def merged(*layers: Mapping[str, Any]) -> Plain:
    """Values over values, as Helm lays files over each other."""
    whole: Plain = {}
    for layer in layers:
        _lay(whole, copy.deepcopy(dict(layer)))
    return whole


def _lay(below: Plain, above: Plain) -> None:
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _lay(below[name], value)
        else:
            below[name] = value


@dataclass(frozen=True)
class Rendered:
    """The objects that an install would make."""

    objects: tuple[Plain, ...]

    def of(self, kind: str) -> dict[str, Plain]:
        """Those of a kind, by name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def pods(self) -> Iterator[tuple[str, Plain]]:
        """(name, pod with metadata and spec) of everything that makes pods."""
        for one in self.objects:
            if one["kind"] in ("Deployment", "DaemonSet", "Job"):
                yield one["metadata"]["name"], one["spec"]["template"]
            elif one["kind"] == "Pod":
                yield one["metadata"]["name"], one

    def container(self, deployment: str) -> Plain:
        """The one container of a Deployment."""
        (container,) = self.of("Deployment")[deployment]["spec"]["template"]["spec"]["containers"]
        return dict(container)

    def env(self, deployment: str) -> dict[str, str]:
        """The variables of a Deployment's container that have a value."""
        container = self.container(deployment)
        return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def values_file(folder: Path, *layers: Mapping[str, Any]) -> Path:
    """These values in a file of that folder."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(merged(*layers)))
    return file


def render(folder: Path, *layers: Mapping[str, Any], release: str = "eventproc", there: Sequence[str] = ()) -> Rendered:
    """Renders the chart with these values; folder: for the values file. Raises Refused.

    there: Helm's arguments for a cluster, whose objects are looked up then, as an upgrade does.
    """
    program = helm()
    assert program is not None
    command = [program, "template", release, str(CHART), "-n", "events", "--kube-version", "1.34.0"]
    command += ["-f", str(values_file(folder, *layers)), *(["--dry-run=server", *there] if there else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return Rendered(tuple(one for one in yaml.safe_load_all(done.stdout) if one))


def refusal(folder: Path, *layers: Plain) -> str:
    """What Helm says against these values; fails when it takes them."""
    with pytest.raises(Refused) as caught:
        render(folder, *layers)
    return str(caught.value)


def selects(selector: Plain, pod: Plain) -> bool:
    """Whether matchLabels select that pod."""
    labels = pod["metadata"]["labels"]
    return all(labels.get(name) == value for name, value in selector["matchLabels"].items())
