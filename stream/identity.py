"""Who we are to a secured Kafka: read anew for every connection and every re-authentication, so that rotation needs no restart.

kafka-python 3 takes a name and a password once, as text, when a client is made. It asks one object for each new connection,
though: the token provider. So that object carries what all mechanisms need, and the mechanisms here ask it.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram

Login = Callable[[], tuple[str, str]]
Token = Callable[[], str]

TIMEOUT_S = 10.0
FRESH = 0.8  # of a token's life: then the next one is asked for
_JAAS = re.compile(r"""\b(username|password)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))""")


class Identity(AbstractTokenProvider):  # type: ignore[misc]
    """What a client authenticates with; either callable may raise, which ends that try to connect and no more."""

    def __init__(self, login: Login | None = None, token: Token | None = None) -> None:
        super().__init__()
        self._login, self._token = login, token

    def login(self) -> tuple[str, str]:
        """Name and password as they are now."""
        if self._login is None:
            raise ValueError("no user name and password are set for Kafka")
        return self._login()

    def token(self) -> str:
        """A bearer token that is valid now."""
        if self._token is None:
            raise ValueError("no OAuth token is set for Kafka")
        return self._token()


def _with_login(config: dict[str, Any]) -> dict[str, Any]:
    identity = config.get("sasl_oauth_token_provider")
    if not isinstance(identity, Identity):
        return config
    name, password = identity.login()
    return {**config, "sasl_plain_username": name, "sasl_plain_password": password}


class _Plain(SaslMechanismPlain):  # type: ignore[misc]
    def __init__(self, **config: Any) -> None:
        super().__init__(**_with_login(config))


class _Scram(SaslMechanismScram):  # type: ignore[misc]
    def __init__(self, **config: Any) -> None:
        super().__init__(**_with_login(config))


register_sasl_mechanism("PLAIN", _Plain, overwrite=True)
register_sasl_mechanism("SCRAM-SHA-256", _Scram, overwrite=True)
register_sasl_mechanism("SCRAM-SHA-512", _Scram, overwrite=True)


def login_of_jaas(path: Path) -> tuple[str, str]:
    """Name and password of a sasl.jaas.config as Strimzi and Kafka write it; raises ValueError that does not quote the file."""
    found = {name: re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in _JAAS.findall(path.read_text())}
    if not found.get("username") or not found.get("password"):
        raise ValueError(
            f'{path} has no username="..." and password="..."; it should be one line as in '
            'org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="...";'
        )
    return found["username"], found["password"]


def text_of(path: Path) -> str:
    """A secret's text without the white space around it; raises ValueError when that is nothing."""
    text = path.read_text().strip()
    if not text:
        raise ValueError(f"{path} is empty")
    return text


class ClientCredentials:
    """Tokens by OAuth 2.0's client credentials grant (RFC 6749, section 4.4), each used for most of its life."""

    def __init__(self, url: str, client_id: str, secret: Callable[[], str], scope: str, ca: Path | None) -> None:
        """url: the token endpoint, https; secret: asked for each new token; ca: a PEM file, read for each new token."""
        self._url, self._id, self._secret, self._scope, self._ca = url, client_id, secret, scope, ca
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() >= self._until:
                asked_at = time.monotonic()
                self._token, lives_s = self._ask()
                self._until = asked_at + FRESH * lives_s
            return self._token

    def _ask(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials", **({"scope": self._scope} if self._scope else {})}
        named = f"{urllib.parse.quote_plus(self._id)}:{urllib.parse.quote_plus(self._secret())}"
        request = urllib.request.Request(
            self._url,
            urllib.parse.urlencode(form).encode(),
            {"Authorization": "Basic " + base64.b64encode(named.encode()).decode(), "Accept": "application/json"},
        )
        tls = ssl.create_default_context(cafile=str(self._ca) if self._ca else None)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls) as answer:
            found = json.loads(answer.read())
        if not isinstance(found, dict) or not isinstance(found.get("access_token"), str):
            raise ValueError(f"{self._url} answered without an access_token")
        return found["access_token"], float(found.get("expires_in") or 0.0)
