"""The download service's own options, from the environment (DOWNLOADS_*)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DownloadsSettings(BaseSettings):
    """EVENTPROC_LEDGER_URL and EVENTPROC_FILES are shared with other stations."""

    model_config = SettingsConfigDict(env_prefix="DOWNLOADS_", populate_by_name=True)

    ledger_url: str = Field(validation_alias="EVENTPROC_LEDGER_URL")
    files: str = Field(validation_alias="EVENTPROC_FILES", description="where executors keep the files of handlers")
    listen: str = Field("0.0.0.0:4416", description="host:port")
    cert: Path | None = Field(
        None, description="PEM file with the certificate chain; none: plain HTTP, behind an ingress"
    )
    key: Path | None = None
    keys_file: Path = Field(description="JSON with the digests of API keys, as the registry has it")
    for_whom: Literal["anyone", "owner"] = Field(
        "anyone",
        description="who may load a file by its link: anyone with an API key (colleagues get the emails, too), or its owner and admins",
    )
