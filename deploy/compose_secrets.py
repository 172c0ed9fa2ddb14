"""python -m deploy.compose_secrets ADDRESS [--folder deploy]: what deploy/compose.yaml needs to begin with.

Makes, once, what is not there: secrets/ (sealing key, service token, certificates for ADDRESS and the name `registry`, digests of API
keys) and .env. Prints each new user's API key, which is kept nowhere else. With --trial, .env has compose.trial.yaml taken along.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from cryptography.fernet import Fernet

from deploy.release import ROOT, present
from devstack.certificates import make_certificates
from devstack.keys import make_keys

USER = 10001
"""Whom the images run as."""
TRIAL = {
    "COMPOSE_FILE": "compose.yaml:compose.trial.yaml",
    "BTRDB_ENDPOINTS": "btrdb:4411",
    "BTRDB_CA_FILE": "{secrets}/tls/ca.pem",
    "SMTP_HOST": "mail",
    "SMTP_PORT": "2525",
    "SMTP_SECURITY": "none",
    "MAIL_FROM": "eventproc@example.com",
}
"""What a trial's own mail server and BTrDB need in .env."""


def main(arguments: list[str] | None = None) -> int:
    """0 when all is there; 1 when the files could not be given to the images' user."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose_secrets")
    parser.add_argument("address", help="IP address at which users reach this machine")
    parser.add_argument("--folder", type=Path, default=ROOT / "deploy", help="of compose.yaml; gets secrets/ and .env")
    parser.add_argument("--users", default="alice,admin", help="comma-separated; `admin` may do what operators do")
    parser.add_argument("--trial", action="store_true", help="with a BTrDB and a mail server of its own")
    given = parser.parse_args(arguments)
    made = given.folder / "secrets"
    made.mkdir(mode=0o700, exist_ok=True)
    names = ("localhost", "registry", *(("btrdb",) if given.trial else ()))
    make_certificates(made / "tls", given.address, names=names)
    for name, text in (("service-token", secrets.token_hex(32)), ("seal-keys", Fernet.generate_key().decode())):
        _once(made / name, text)
    if not (made / "keys.json").exists():
        roles = {user: ["user", "admin"] if user == "admin" else ["user"] for user in given.users.split(",")}
        for user, key in make_keys(roles, made / "keys.json").items():
            sys.stdout.write(f"API key of {user}: {key}\n")
    settings = {
        "COMPOSE_PROJECT_NAME": "eventproc",
        "EVENTPROC_VERSION": present(ROOT),
        "EVENTPROC_SECRETS": str(made.resolve()),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "DOWNLOADS_ENDPOINT": f"{given.address}:4416",
        **(TRIAL if given.trial else {}),
    }
    text = "".join(f"{name}={value}\n" for name, value in settings.items())
    _once(given.folder / ".env", text.replace("{secrets}", str(made.resolve())))
    try:
        for path in (made, *made.rglob("*")):
            os.chown(path, USER, USER)
    except PermissionError:
        sys.stderr.write(f"give them to the images' user: sudo chown -R {USER}:{USER} {made}\n")
        return 1
    return 0


def _once(path: Path, text: str) -> None:
    if not path.exists():
        path.touch(0o600)
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
