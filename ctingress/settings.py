"""The ingress's own options, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ctingress.open import Limits


class IngressSettings(BaseSettings):
    """Where BTrDB is (as its own client reads it), and what archives may hold (CTINGRESS_*)."""

    model_config = SettingsConfigDict(env_prefix="CTINGRESS_", populate_by_name=True)

    btrdb_endpoint: str = Field(validation_alias="BTRDB_ENDPOINTS", description="host:port; port 4411 means TLS")
    btrdb_api_key: SecretStr | None = Field(None, validation_alias="BTRDB_API_KEY")
    btrdb_ca_bundle: Path | None = Field(None, validation_alias="BTRDB_CA_BUNDLE", description="read by btrdb itself")
    max_files: int = Field(5_000, ge=1, description="members of an archive")
    max_bytes: int = Field(4 << 30, ge=1, description="an archive's size once unpacked")
    max_ratio: float = Field(200.0, gt=1, description="unpacked to packed, of the whole archive")
    announce_timeout_s: float = Field(60.0, gt=0)

    def limits(self) -> Limits:
        """What an archive may hold."""
        return Limits(self.max_files, self.max_bytes, self.max_ratio)
