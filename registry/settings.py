"""The registry's own options, from the environment (REGISTRY_*, and what it shares with other stations)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ledger.settings import SealSettings

MIB = 1024 * 1024


class RegistrySettings(SealSettings):
    """Addresses are host:port, port 0 for a free one."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_", populate_by_name=True)

    ledger_url: str = Field(validation_alias="EVENTPROC_LEDGER_URL")
    listen: str = Field("0.0.0.0:4412", description="the users' service")
    internal_listen: str = Field("0.0.0.0:4413", description="the executors' service")
    cert: Path | None = Field(None, description="PEM file with the server's certificate chain")
    key: Path | None = None
    public_tls: bool = Field(True, description="false behind a route that ends TLS")
    internal_tls: bool = Field(True, description="false sends users' keys in the clear; for tests")
    keys_file: Path = Field(description="JSON with the digests of API keys, their users and roles")
    tokens_file: Path = Field(description="service tokens of executors, one a line")
    runtimes: str = Field(description="runtimes that executors serve, comma-separated: py3.11,py3.7")
    ambiguous_python: Literal["oldest", "refuse"] = Field(
        "oldest", description="a pickle that fits several Pythons goes to the oldest served, or is refused"
    )
    mail_domains: str = Field(
        "", validation_alias="EVENTPROC_MAIL_DOMAINS", description="domains that may be written to; * for all"
    )
    blob_bytes: int = Field(32 * MIB, ge=1024, description="largest pickle")
    answer_bytes: int = Field(64 * MIB, description="largest answer to an executor")
    check_s: float = Field(
        5.0, ge=0, description="a registration waits so long for an executor to load its handler; 0: not at all"
    )
    most_timeout_s: float = Field(14_400.0, ge=1, description="that a handler may ask for, for one attempt")
    most_memory_bytes: int = Field(
        2048 * MIB, ge=64 * MIB, description="the same; executors give no more than their EXECUTOR_MEMORY_BYTES"
    )
    most_retries: int = Field(10, ge=0, le=20, description="that a handler may ask for")
    most_retry_delay_s: float = Field(86_400.0, ge=0)
    downloads_endpoint: str = Field(
        "", description="host of the links to handlers' files; empty: files are named without a link"
    )
    threads: int = Field(16, ge=1)
    beat_s: float = Field(3.0, gt=0, description="between two signs of life in the ledger; less when leases are short")
    grace_s: float = Field(10.0, ge=0)

    def runtime_names(self) -> tuple[str, ...]:
        """The runtimes served; raises ValueError when none is named."""
        names = tuple(name.strip() for name in self.runtimes.split(",") if name.strip())
        if not names:
            raise ValueError(
                "REGISTRY_RUNTIMES is empty; it should name the runtimes that executors serve, as in py3.11,py3.7"
            )
        return names
