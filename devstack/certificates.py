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


@dataclass(frozen=True)
class Certificates:
    """PEM files: the CA that clients trust, the server's certificate and its key."""

    ca: Path
    cert: Path
    key: Path


def make_certificates(folder: Path, address: str, names: Sequence[str] = ()) -> Certificates:
    """A CA and a certificate for the IP address and the names; those that are there are kept while they fit and are valid."""
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if _still_good(made, address, names):
        return made
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "eventproc development CA")])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(address)),
        *(x509.DNSName(n) for n in names),
    ]
    cert = (
        _builder(subject, ca_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    handle = os.open(made.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    made.cert.write_bytes(cert.public_bytes(pem))
    made.ca.write_bytes(ca.public_bytes(pem))
    return made


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
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
