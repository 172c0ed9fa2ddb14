"""A real Kafka as in production: TLS, SCRAM and OAuth users, client certificates, ACLs; its own certificates, made here."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from devstack import kafka
from devstack.certificates import Authority
from devstack.supervisor import Process, Supervisor
from schemas.acls import Acl

AUDIENCE, ISSUER = "kafka", "https://issuer.example.com"
REAUTHENTICATE_MS = 4000
LOGGING = (
    "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
    "appender.out.layout.pattern=%d %p %m (%c)%n\nrootLogger.level=WARN\nrootLogger.appenderRef.out.ref=out\n"
    "logger.authorizer.name=kafka.authorizer.logger\nlogger.authorizer.level=INFO\n"
)


def free_ports(address: str, count: int) -> list[int]:
    """Ports that nobody listens at now."""
    held = []
    for _ in range(count):
        one = socket.socket()
        one.bind((address, 0))
        held.append(one)
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def loopback() -> str:
    """An address of this machine that is most likely nobody's."""
    return f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"


class Issuer:
    """Signs OAuth tokens (RFC 7519, RS256), whose public key the broker knows."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)

    def jwks(self) -> str:
        """The public key as a JWK set (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        modulus = _base64(numbers.n.to_bytes(256, "big"))
        return json.dumps({"keys": [{"kty": "RSA", "use": "sig", "kid": "one", "n": modulus, "e": "AQAB"}]})

    def token(self, user: str, lives_s: float = 600) -> str:
        """A token for the user."""
        now = time.time()
        claims = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "iat": int(now), "exp": int(now + lives_s)}
        head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        return f"{text}.{_base64(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class SecureKafka:
    """plain: everybody is a super user there (the tests' own way in); sasl_ssl and ssl: as a deployment has them."""

    plain: str
    sasl_ssl: str
    ssl: str
    ca: Path
    clients: Authority
    issuer: Issuer
    admin: Any
    log: Path

    def client(self, name: str, folder: Path) -> dict[str, str]:
        """The environment of a client that comes with a certificate for that name, which is written into the folder."""
        cert, key = self.clients.issue(name)
        (folder / f"{name}.crt").write_bytes(cert)
        (folder / f"{name}.key").write_bytes(key)
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.ssl,
            "EVENTPROC_KAFKA_SECURITY_PROTOCOL": "SSL",
            "EVENTPROC_KAFKA_SSL_CAFILE": str(self.ca),
            "EVENTPROC_KAFKA_SSL_CERTFILE": str(folder / f"{name}.crt"),
            "EVENTPROC_KAFKA_SSL_KEYFILE": str(folder / f"{name}.key"),
        }

    def denied(self, principal: str, operation: str, resource: str) -> int:
        """How often this was refused until now, by the authorizer's log. resource: as in Topic:LITERAL:eventproc.results."""
        said = (
            rf"Principal = {re.escape(principal)} is Denied operation = {_constant(operation)} .*{re.escape(resource)}"
        )
        return len(re.findall(said, self.log.read_text()))

    def scram_user(self, name: str, password: str) -> None:
        """Makes the user, or gives it another password."""
        said = self.admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password.encode(), iterations=4096)]
        )
        assert said == {name: None}

    def allow(self, principal: str, *rights: Acl) -> None:
        """From now on the principal has these."""
        assert not self.admin.create_acls([_acl(principal, right) for right in rights])["failed"]

    def forbid(self, principal: str, *rights: Acl) -> None:
        """From now on it has not."""
        self.admin.delete_acls([_acl(principal, right) for right in rights])


def _acl(principal: str, right: Acl) -> Any:
    pattern = ACLResourcePatternType.PREFIXED if right.prefix else ACLResourcePatternType.LITERAL
    resource = ResourcePattern(ResourceType[right.kind.upper()], right.name, pattern)
    return ACL(principal, "*", ACLOperation[_constant(right.operation)], ACLPermissionType.ALLOW, resource)


def _constant(operation: str) -> str:
    """AlterConfigs -> ALTER_CONFIGS"""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).upper()


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """One that runs for the block."""
    address = loopback()
    plain, controller, sasl_ssl, ssl = free_ports(address, 4)
    brokers, clients, issuer = Authority("brokers"), Authority("clients"), Issuer()
    cert, key = brokers.issue(address, [address])
    (folder / "broker.pem").write_bytes(key + cert)
    (folder / "clients.pem").write_bytes(clients.pem)
    (folder / "ca.crt").write_bytes(brokers.pem)
    (folder / "jwks.json").write_text(issuer.jwks())
    ports = {"PLAINTEXT": plain, "SASL_SSL": sasl_ssl, "SSL": ssl}
    (folder / "log4j2.properties").write_text(LOGGING)
    options = [
        f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={(folder / 'jwks.json').as_uri()}",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
    ]
    started = kafka.command(
        folder / "state", address, plain, controller, _settings(folder, address, ports, controller), options
    )
    supervisor = Supervisor(folder)
    supervisor.add(Process("kafka", started.argv, {**os.environ, **started.env}, ready=started.ready))
    supervisor.start(lambda text: None)
    admin = KafkaAdminClient(bootstrap_servers=[started.bootstrap])
    try:
        yield SecureKafka(
            started.bootstrap,
            f"{address}:{sasl_ssl}",
            f"{address}:{ssl}",
            folder / "ca.crt",
            clients,
            issuer,
            admin,
            folder / "logs" / "kafka.log",
        )
    finally:
        admin.close()
        supervisor.stop()


def _settings(folder: Path, address: str, ports: dict[str, int], controller: int) -> dict[str, object]:
    listeners = ",".join(f"{name}://{address}:{port}" for name, port in ports.items())
    security = "org.apache.kafka.common.security"
    oauth = "listener.name.sasl_ssl.oauthbearer.sasl"
    return {
        "listeners": f"{listeners},CONTROLLER://{address}:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": folder / "clients.pem",
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "connections.max.reauth.ms": REAUTHENTICATE_MS,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
        f"{oauth}.jaas.config": f"{security}.oauthbearer.OAuthBearerLoginModule required;",
        f"{oauth}.server.callback.handler.class": f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler",
        f"{oauth}.oauthbearer.jwks.endpoint.url": (folder / "jwks.json").as_uri(),
        f"{oauth}.oauthbearer.expected.audience": AUDIENCE,
        f"{oauth}.oauthbearer.expected.issuer": ISSUER,
    }
