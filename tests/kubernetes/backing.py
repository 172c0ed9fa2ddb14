"""What the chart takes for granted: Kafka, PostgreSQL, a mail server, BTrDB; their Secrets, volumes and Services; users' keys."""

from __future__ import annotations

import base64
import os
import secrets
import string
from pathlib import Path

import yaml

from devstack import kafka
from devstack.certificates import make_certificates
from devstack.keys import make_keys
from devstack.layout import USERS
from devstack.versions import KAFKA_IMAGE
from tests.kubernetes.cluster import NAMESPACES, Cluster, Plain

HERE = Path(__file__).parent
PORTS = {"kafka": 9092, "postgresql": 5432, "mail": 2525, "btrdb": 4411}
STATIONS_USER, KAFKA_USER = 10001, 1000
VOLUMES = {
    "kafka": ("backing", KAFKA_USER),
    "postgresql": ("backing", STATIONS_USER),
    "mail": ("backing", STATIONS_USER),
    "storage": ("events", STATIONS_USER),
}
"""Claim -> its namespace, and whom its folder of this machine belongs to."""
PATIENCE_S = 600.0


class Backing:
    """It in the cluster. api_keys: user -> key; mail: where emails come to lie on this machine."""

    def __init__(self, cluster: Cluster, state: Path, companions: str) -> None:
        """state: folder of this machine for what must outlive pods."""
        self._cluster = cluster
        self._state = state
        self._companions = companions
        self._password = secrets.token_hex(16)
        self.mail = state / "mail"
        self.api_keys = make_keys(USERS, state / "keys.json")

    def start(self) -> None:
        """Makes all of it; returns when all but BTrDB, which waits for the registry's certificate, is ready."""
        cluster = self._cluster
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply(
            *(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}}
                for name in NAMESPACES
            ),
            *(_service(name, port) for name, port in PORTS.items()),
            *(one for claim in VOLUMES for one in self._volume(claim)),
        )
        self._secrets()
        text = string.Template((HERE / "backing.yaml").read_text()).substitute(
            COMPANIONS=self._companions, KAFKA_IMAGE=KAFKA_IMAGE, KAFKA_IP=cluster.address("backing", "kafka"),
            SINGLE=f"\n{' ' * 10}".join(
                f"{name}={value}" for name, value in kafka.SINGLE.items() if not name.startswith("broker.")
            ),  # its short session would end here whenever the machine is busy
        )  # fmt: skip
        cluster.apply(*yaml.safe_load_all(text))
        for kind in ("statefulset/kafka", "statefulset/postgresql", "deployment/mail"):
            cluster.until(lambda kind=kind: self._is_ready(kind), f"{kind} to be ready", PATIENCE_S)  # type: ignore[misc]

    def trust_the_registry(self) -> None:
        """BTrDB's address serves the registry too, as a platform's route has it: by the certificate that the chart has made."""
        (made,) = self._cluster.get("events", "secret", "--field-selector=metadata.name=eventproc-registry-tls")
        tls = self._state / "tls"
        files = {name: (tls / name).read_text() for name in ("server.pem", "server.key")}
        files["registry-ca.crt"] = base64.b64decode(made["data"]["ca.crt"]).decode()
        files["keys.json"] = (self._state / "keys.json").read_text()
        self._cluster.secret("backing", "btrdb", files)
        self._cluster.settled("backing", PATIENCE_S)

    @property
    def ca(self) -> Path:
        """Of BTrDB's certificate."""
        return self._state / "tls" / "ca.pem"

    def at(self, name: str) -> str:
        """host:port of one of them, from this machine as from a pod."""
        return f"{self._cluster.address('backing', name)}:{PORTS[name]}"

    @property
    def ledger_url(self) -> str:
        """The ledger, from this machine."""
        return self._url(self.at("postgresql"))

    def _url(self, server: str) -> str:
        return f"postgresql+psycopg://eventproc:{self._password}@{server}/postgres"

    def _secrets(self) -> None:
        make_certificates(self._state / "tls", self._cluster.address("backing", "btrdb"), names=("btrdb.backing.svc",))
        secret = self._cluster.secret
        secret("backing", "postgresql", {"password": self._password})
        secret("events", "ledger", {"url": self._url("postgresql.backing.svc:5432")})
        secret("events", "btrdb-ca", {"ca.crt": self.ca.read_text()})
        secret("events", "api-keys", {"keys.json": (self._state / "keys.json").read_text()})
        secret("events", "probe", {"api-key": self.api_keys["alice"]})

    def _volume(self, claim: str) -> list[Plain]:
        namespace, user = VOLUMES[claim]
        folder = self._state / claim
        folder.mkdir()
        os.chown(folder, user, user)
        size = {"storage": "1Gi"}
        both: Plain = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        volume = {
            "capacity": size,
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": namespace, "name": claim},
        }
        wanted = {"volumeName": claim, "resources": {"requests": size}}
        return [
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": claim}, "spec": {**both, **volume}},
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": namespace},
                "spec": {**both, **wanted},
            },
        ]  # fmt: skip

    def _is_ready(self, what: str) -> bool:
        return self._cluster.kubectl("-n", "backing", "get", what, "-o", "jsonpath={.status.readyReplicas}") == "1"


def _service(name: str, port: int) -> Plain:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "backing"},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port, "protocol": "TCP"}]},
    }  # fmt: skip
