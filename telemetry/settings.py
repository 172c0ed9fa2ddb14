"""Where a process serves its telemetry, from the environment (EVENTPROC_METRICS_*)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
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

    max_turn_age_s: float = Field(
        60.0,
        gt=0,
        validation_alias="EVENTPROC_MAX_TURN_AGE_S",
        description="a main loop that has not turned for longer is stuck",
    )

    def serve(self, health: Health) -> int:
        """Serves the health and the metrics here, writes the address into the file (whole or not at all); returns the port."""
        health.limit(self.max_turn_age_s)
        port = health.serve(self.host, self.port)
        if self.file is not None:
            fresh = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            fresh.write_text(f"[{self.host}]:{port}\n" if ":" in self.host else f"{self.host}:{port}\n")
            fresh.replace(self.file)
        return port


Options = TypeVar("Options", bound=BaseSettings)


def from_environment(kind: type[Options]) -> Options:
    """A station's options; ends the process with exit code 2 and one line per option that is missing or wrong."""
    try:
        return kind()
    except ValidationError as error:
        problems = [_problem(kind, problem) for problem in error.errors()]
        print(f"{kind.__module__.split('.')[0]}: the environment is not right:", *problems, sep="\n  ", file=sys.stderr)
        raise SystemExit(2) from None


def _problem(kind: type[BaseSettings], problem: ErrorDetails) -> str:
    if not problem["loc"]:  # of several options together: its text names them; the input may hold secrets
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][0])
    field = kind.model_fields.get(name)
    if field is None:
        field = next((f for f in kind.model_fields.values() if f.validation_alias == name), None)
        variable = name
    else:
        alias = field.validation_alias
        variable = alias if isinstance(alias, str) else f"{kind.model_config.get('env_prefix', '')}{name}".upper()
    about = f" ({field.description})" if field is not None and field.description else ""
    what = "is not set" if problem["type"] == "missing" else f"is {problem['input']!r}: {problem['msg']}"
    return f"{variable} {what}{about}"
