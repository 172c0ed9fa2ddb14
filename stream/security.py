"""How to reach a secured Kafka, from the environment: TLS, client certificates, SASL. Secrets come from files that may rotate."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from stream.identity import ClientCredentials, Identity, login_of_jaas, text_of

LOGINS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
OAUTHBEARER = "OAUTHBEARER"
VARIABLE = "EVENTPROC_KAFKA_"


class SecuritySettings(BaseSettings):
    """Named as Kafka names them (sasl.mechanism: SASL_MECHANISM), but for the PEM files, which are kafka-python's names.

    Every file is read anew for each connection: what a Secret holds after it was rotated counts from the next connection on.
    """

    security_protocol: str = Field("PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")

    ssl_cafile: Path | None = Field(
        None, description="PEM, Strimzi's ca.crt: who signs brokers; none: the system's CAs"
    )
    ssl_certfile: Path | None = Field(None, description="PEM, Strimzi's user.crt: our certificate")
    ssl_keyfile: Path | None = Field(None, description="PEM, Strimzi's user.key: its key")
    ssl_password: SecretStr | None = Field(None, description="of the key file")
    ssl_password_file: Path | None = Field(None, description="the same as a file")

    sasl_mechanism: str | None = Field(None, pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|OAUTHBEARER)$")
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = Field(None, description="Strimzi's password")
    sasl_jaas_config_file: Path | None = Field(None, description="Strimzi's sasl.jaas.config: name and password in one")

    sasl_oauthbearer_token_endpoint_url: str | None = Field(
        None,
        pattern="^(https://|file:///)",
        description="https: asked by client id and secret; file: holds a token that somebody keeps fresh",
    )
    sasl_oauthbearer_client_id: str | None = None
    sasl_oauthbearer_client_secret_file: Path | None = None
    sasl_oauthbearer_scope: str = ""
    sasl_oauthbearer_cafile: Path | None = Field(None, description="PEM: who signs the token endpoint")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._tls_fits()
        if not self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism is not None:
                raise ValueError(
                    f"{VARIABLE}SASL_MECHANISM is set, but {VARIABLE}SECURITY_PROTOCOL is {self.security_protocol}; "
                    "it should be SASL_SSL"
                )
        elif self.sasl_mechanism in LOGINS:
            self._login_fits()
        elif self.sasl_mechanism == OAUTHBEARER:
            self._oauth_fits()
        else:
            raise ValueError(
                f"{VARIABLE}SASL_MECHANISM is not set; with {self.security_protocol} it should be one of "
                f"{', '.join((*LOGINS, OAUTHBEARER))}"
            )
        return self

    def secured(self) -> dict[str, Any]:
        """The options of a Kafka client, as kafka-python names them. No secret is in them, only where to read it."""
        return {
            "security_protocol": self.security_protocol,
            "ssl_cafile": self.ssl_cafile and str(self.ssl_cafile),
            "ssl_certfile": self.ssl_certfile and str(self.ssl_certfile),
            "ssl_keyfile": self.ssl_keyfile and str(self.ssl_keyfile),
            "ssl_password": self._key_password(),
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_oauth_token_provider": self._identity(),
        }

    def _identity(self) -> Identity | None:
        if self.sasl_mechanism == OAUTHBEARER:
            return Identity(token=self._token())
        return Identity(login=self._login) if self.sasl_mechanism else None

    def _login(self) -> tuple[str, str]:
        if self.sasl_jaas_config_file is not None:
            name, password = login_of_jaas(self.sasl_jaas_config_file)
            return self.sasl_username or name, password
        return self.sasl_username or "", _secret(self.sasl_password, self.sasl_password_file)

    def _token(self) -> Callable[[], str]:
        url = self.sasl_oauthbearer_token_endpoint_url or ""
        if url.startswith("file:"):
            path = Path(unquote(urlsplit(url).path))
            return lambda: text_of(path)
        secret = self.sasl_oauthbearer_client_secret_file
        assert secret is not None and self.sasl_oauthbearer_client_id
        return ClientCredentials(
            url,
            self.sasl_oauthbearer_client_id,
            lambda: text_of(secret),
            self.sasl_oauthbearer_scope,
            self.sasl_oauthbearer_cafile,
        )

    def _key_password(self) -> Callable[[], str] | None:
        if self.ssl_password is None and self.ssl_password_file is None:
            return None
        return lambda: _secret(self.ssl_password, self.ssl_password_file)

    def _tls_fits(self) -> None:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError(f"{VARIABLE}SSL_CERTFILE and {VARIABLE}SSL_KEYFILE belong together; only one is set")
        if not self.security_protocol.endswith("SSL"):
            if self.ssl_cafile or self.ssl_certfile:
                raise ValueError(
                    f"{VARIABLE}SSL_* is set, but {VARIABLE}SECURITY_PROTOCOL is {self.security_protocol}; "
                    "it should be SSL or SASL_SSL"
                )
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ssl_cafile is not None:
            _readable("SSL_CAFILE", self.ssl_cafile)
            _taken("SSL_CAFILE", lambda: context.load_verify_locations(self.ssl_cafile), "CA certificates as PEM")
        if self.ssl_certfile is not None and self.ssl_keyfile is not None:
            _readable("SSL_CERTFILE", self.ssl_certfile)
            _readable("SSL_KEYFILE", self.ssl_keyfile)
            certfile, keyfile = self.ssl_certfile, self.ssl_keyfile
            # without a password OpenSSL would ask for one at the terminal
            password = self._key_password() or (lambda: "")
            _taken(
                "SSL_CERTFILE and SSL_KEYFILE",
                lambda: context.load_cert_chain(certfile, keyfile, password),
                "a certificate and its key as PEM (SSL_PASSWORD or SSL_PASSWORD_FILE where the key has one)",
            )

    def _login_fits(self) -> None:
        if self.sasl_jaas_config_file is not None:
            _readable("SASL_JAAS_CONFIG_FILE", self.sasl_jaas_config_file)
        elif not self.sasl_username or (self.sasl_password is None and self.sasl_password_file is None):
            raise ValueError(
                f"{self.sasl_mechanism} needs {VARIABLE}SASL_USERNAME and {VARIABLE}SASL_PASSWORD_FILE, or "
                f"{VARIABLE}SASL_JAAS_CONFIG_FILE"
            )
        elif self.sasl_password_file is not None:
            _readable("SASL_PASSWORD_FILE", self.sasl_password_file)
        self._login()

    def _oauth_fits(self) -> None:
        url = self.sasl_oauthbearer_token_endpoint_url
        if url is None:
            raise ValueError(
                f"OAUTHBEARER needs {VARIABLE}SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: https://... or file:///..."
            )
        if url.startswith("file:"):
            return
        if not self.sasl_oauthbearer_client_id or self.sasl_oauthbearer_client_secret_file is None:
            raise ValueError(
                f"OAUTHBEARER with an https token endpoint needs {VARIABLE}SASL_OAUTHBEARER_CLIENT_ID and "
                f"{VARIABLE}SASL_OAUTHBEARER_CLIENT_SECRET_FILE"
            )
        _readable("SASL_OAUTHBEARER_CLIENT_SECRET_FILE", self.sasl_oauthbearer_client_secret_file)
        if self.sasl_oauthbearer_cafile is not None:
            _readable("SASL_OAUTHBEARER_CAFILE", self.sasl_oauthbearer_cafile)


def _secret(given: SecretStr | None, path: Path | None) -> str:
    return text_of(path) if path is not None else (given.get_secret_value() if given is not None else "")


def _readable(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ValueError(f"{VARIABLE}{name}: {path} cannot be read: {error.strerror}") from error


def _taken(name: str, load: Callable[[], None], wanted: str) -> None:
    try:
        load()
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"{VARIABLE}{name}: {error}; should be {wanted}") from error
