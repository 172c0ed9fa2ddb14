"""Where a process serves its telemetry, from the environment (EVENTPROC_METRICS_*)."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.health import Health


class TelemetrySettings(BaseSettings):
    """The log's level is EVENTPROC_LOG_LEVEL, read by logs.setup."""

    model_config = SettingsConfigDict(env_prefix="EVENTPROC_METRICS_")

    host: str = Field(
        "127.0.0.1", description="address to serve at; 0.0.0.0 or :: in a pod, for its probes and Prometheus"
    )
    port: int = Field(0, ge=0, le=65535, description="0: a free one")
    file: Path | None = Field(None, description="gets host:port once it is served")

    def serve(self, health: Health) -> int:
        """Serves the health and the metrics here, writes the address into the file (whole or not at all); returns the port."""
        port = health.serve(self.host, self.port)
        if self.file is not None:
            fresh = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            fresh.write_text(f"[{self.host}]:{port}\n" if ":" in self.host else f"{self.host}:{port}\n")
            fresh.replace(self.file)
        return port
