"""A certificate authority of the stack's own and a server certificate for its address."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 365
RENEW_DAYS = 30
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Certificates:
    """PEM files: the CA that clients trust, the server's certificate and its key."""

    ca: Path
    cert: Path
    key: Path


class Authority:
    """A certificate authority that signs for servers and clients."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._cert = (
            _builder(self._name, self._name, self._key.public_key(), DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._cert.public_bytes(PEM)

    def issue(
        self, common_name: str, addresses: Sequence[str] = (), names: Sequence[str] = (), days: float = DAYS
    ) -> tuple[bytes, bytes]:
        """Certificate and PKCS 8 key as PEM: a server's for these addresses and names, else a client's; days may be negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        alternatives: list[x509.GeneralName] = [
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
            *(x509.DNSName(name) for name in names),
        ]
        builder = _builder(subject, self._name, key.public_key(), days)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if alternatives else ExtendedKeyUsageOID.CLIENT_AUTH
        cert = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return cert.public_bytes(PEM), private


def make_certificates(folder: Path, address: str, names: Sequence[str] = ()) -> Certificates:
    """A CA and a certificate for the IP address and the names; those that are there are kept while they fit and are valid."""
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if _still_good(made, address, names):
        return made
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority("eventproc development CA")
    cert, key = authority.issue(address, [address], names)
    handle = os.open(made.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(key)
    made.cert.write_bytes(cert)
    made.ca.write_bytes(authority.pem)
    return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    """Valid for so many days from an hour ago on; with negative days it was valid until then."""
    now = datetime.datetime.now(datetime.UTC)
    start, end = sorted((now - datetime.timedelta(hours=1), now + datetime.timedelta(days=days)))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=sign_certificates, crl_sign=sign_certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _still_good(made: Certificates, address: str, names: Sequence[str]) -> bool:
    if not all(path.exists() for path in (made.ca, made.cert, made.key)):
        return False
    cert = x509.load_pem_x509_certificate(made.cert.read_bytes())
    there = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(one) for one in there.get_values_for_type(x509.IPAddress)]
    fits = address in addresses and set(names) <= set(there.get_values_for_type(x509.DNSName))
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=RENEW_DAYS)
    return fits and cert.not_valid_after_utc > soon
