"""The notifier's own options, from the environment (NOTIFIER_*)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.addresses import check_address

USUAL_PORT = {"none": 25, "starttls": 587, "tls": 465}  # RFC 5321, RFC 6409, RFC 8314
STEPS_OF_A_MAIL = 10  # waits for the server while one mail is handed over, the connection's own steps among them


class NotifierSettings(BaseSettings):
    """EVENTPROC_LEDGER_URL and EVENTPROC_MAIL_DOMAINS are shared with other stations. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="NOTIFIER_", populate_by_name=True)

    ledger_url: str = Field(
        validation_alias="EVENTPROC_LEDGER_URL", description="sqlite:////path or postgresql+psycopg://..."
    )
    group: str = "eventproc-notifier"
    instance: str | None = Field(None, description="static membership: a name that stays over restarts")
    max_records: int = Field(200, ge=1, description="results in one transaction")
    name: str = Field(default_factory=socket.gethostname, description="for people: who holds the lease of a mail")

    smtp_host: str = Field(description="the SMTP server that takes our mail")
    smtp_port: int | None = Field(None, ge=1, le=65535, description="none: 25, 587 or 465 by smtp_security")
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "starttls", description="never lowered by what the server offers"
    )
    smtp_ca: Path | None = Field(None, description="PEM file of the server's CA; none: the system's")
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_password_file: Path | None = Field(None, description="the same; read anew for each connection")
    smtp_timeout_s: float = Field(10.0, gt=0, description="for each step of the conversation")
    sender: str = Field(validation_alias="NOTIFIER_FROM", description="the address that the emails come from")
    mail_domains: str = Field(
        "",
        validation_alias="EVENTPROC_MAIL_DOMAINS",
        description="example.com,*.example.org; *: all; empty: nobody is written to",
    )

    files: str = Field(
        "",
        validation_alias="EVENTPROC_FILES",
        description="where executors keep files of handlers; empty: there are none",
    )
    downloads_endpoint: str = Field("", description="host of the links to them; empty: files are named without a link")
    picture_bytes: int = Field(1 << 20, ge=0, description="a larger picture is linked, not shown in the email")

    expire_every_s: float = Field(600.0, gt=0, description="between two removals of files that are too old")
    batch: int = Field(20, ge=1, description="emails taken at a time")
    lease_s: float = Field(
        150.0,
        gt=0,
        description="how long taken emails are ours; so long they wait when the process is killed meanwhile",
    )
    every_s: float = Field(1.0, gt=0, description="pause between looks into the outbox when nothing was said")
    first_wait_s: float = Field(5.0, gt=0, description="before an email is tried again; doubles each time")
    longest_wait_s: float = Field(1800.0, gt=0)
    most_tries: int = Field(
        250, ge=1, description="an email that the server puts off so often is given up (about five days)"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_address(self.sender)
        if self.smtp_user and self.smtp_security == "none":
            raise ValueError(
                "NOTIFIER_SMTP_USER: a password is not sent in the clear; set NOTIFIER_SMTP_SECURITY to starttls or tls"
            )
        if self.lease_s < self.mail_s + 5:
            raise ValueError(
                f"NOTIFIER_LEASE_S: should be at least {STEPS_OF_A_MAIL} times NOTIFIER_SMTP_TIMEOUT_S and 5 s more ({self.mail_s + 5:g}), "
                f"so that it does not end while an email is handed over; is {self.lease_s:g}"
            )
        return self

    def password(self) -> str:
        """The password of smtp_user as it is now. Raises OSError when its file cannot be read."""
        if self.smtp_password_file is not None:
            return self.smtp_password_file.read_text().strip()
        return self.smtp_password.get_secret_value()

    @property
    def mail_s(self) -> float:
        """The longest that handing one email over can take, in seconds."""
        return STEPS_OF_A_MAIL * self.smtp_timeout_s

    @property
    def port(self) -> int:
        """The SMTP server's port."""
        return self.smtp_port or USUAL_PORT[self.smtp_security]

    def wait_s(self, tries: int) -> float:
        """How long an email waits that has been tried that often."""
        return float(min(self.first_wait_s * 2 ** min(max(tries - 1, 0), 32), self.longest_wait_s))
