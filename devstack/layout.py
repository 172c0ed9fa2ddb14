"""Where a stack on one machine keeps what, and at which addresses its parts listen."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from devstack.addresses import free_address
from devstack.certificates import Certificates, make_certificates
from devstack.keys import make_keys

BTRDB_PORT = 4411  # the only port at which BTrDB's clients speak TLS
PORTS = {
    "kafka": 9092,
    "kafka-controller": 9093,
    "registry": 4412,
    "executors": 4413,
    "smtp": 2525,
    "ingress": 4415,
    "downloads": 4416,
}
METRICS = {
    "registry": 9101,
    "dispatcher": 9102,
    "executor": 9103,
    "notifier": 9104,
    "ctingress": 9105,
    "downloads": 9106,
}
USERS = {"alice": ["user"], "bob": ["user"], "admin": ["user", "admin"]}
RUNTIME = f"py{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Layout:
    """One stack. state: its folder, usually .devstack; address: a loopback address of its own; api_keys: user -> key; name: some
    hex digits that no other stack has."""

    state: Path
    address: str
    certificates: Certificates
    api_keys: dict[str, str]
    name: str

    def at(self, part: str) -> str:
        """host:port of a part: btrdb, kafka, registry, executors, smtp."""
        return f"{self.address}:{BTRDB_PORT if part == 'btrdb' else PORTS[part]}"

    def metrics_urls(self) -> list[str]:
        """Where each station serves its metrics."""
        return [f"http://{self.address}:{port}/metrics" for port in METRICS.values()]

    @property
    def ledger_url(self) -> str:
        """The stack's ledger."""
        return f"sqlite:///{self.state / 'ledger.db'}"

    @property
    def mail(self) -> Path:
        """Folder of the .eml files."""
        return self.state / "mail"

    @property
    def env_file(self) -> Path:
        """The file to source."""
        return self.state / "env"

    def notebook_env(self, bootstrap: str) -> dict[str, str]:
        """What a notebook, a producer or an operator's script needs to use the stack."""
        return {
            "BTRDB_ENDPOINTS": self.at("btrdb"),
            "BTRDB_API_KEY": self.api_keys["alice"],
            "BTRDB_CA_BUNDLE": str(self.certificates.ca),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "EVENTPROC_INGRESS": f"https://{self.at('ingress')}",
            "EVENTPROC_MAIL_DIR": str(self.mail),
            "EVENTPROC_METRICS": " ".join(self.metrics_urls()),
            "EVENTPROC_LEDGER_URL": self.ledger_url,
            "EVENTPROC_API_KEYS": " ".join(f"{user}={key}" for user, key in self.api_keys.items()),
        }


def prepare(state: Path) -> Layout:
    """Makes (or, for a folder that has been used before, finds again) keys, certificates and addresses. Blocks shortly."""
    state = state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    kept = state / "stack.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    address = free_address(BTRDB_PORT, *PORTS.values(), *METRICS.values(), prefer=known.get("address"))
    api_keys = known.get("api_keys") or make_keys(USERS, state / "keys.json")
    name = known.get("name") or secrets.token_hex(4)
    _secret(kept, json.dumps({"address": address, "api_keys": api_keys, "name": name}))
    certificates = make_certificates(state / "tls", address, names=("localhost",))
    if not (state / "service-token").exists():
        _secret(state / "service-token", secrets.token_hex(32))
    if not (state / "seal-keys").exists():
        _secret(state / "seal-keys", Fernet.generate_key().decode())
    (state / "mail").mkdir(exist_ok=True)
    return Layout(state, address, certificates, api_keys, name)


def _secret(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
