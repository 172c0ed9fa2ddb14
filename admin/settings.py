"""Where the ledger and the broker are, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class AdminSettings(BaseSettings):
    """EVENTPROC_LEDGER_URL; the broker's are stream/settings.py's."""

    model_config = SettingsConfigDict(env_prefix="ADMIN_")

    ledger_url: str = Field(
        validation_alias="EVENTPROC_LEDGER_URL", description="sqlite:////path or postgresql+psycopg://..."
    )
    dispatcher_group: str = Field("eventproc-dispatcher", validation_alias="DISPATCHER_GROUP")
