"""The dispatcher's own options, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DispatcherSettings(BaseSettings):
    """EVENTPROC_LEDGER_URL is shared with the other stations that keep the ledger."""

    model_config = SettingsConfigDict(env_prefix="DISPATCHER_")

    ledger_url: str = Field(
        validation_alias="EVENTPROC_LEDGER_URL", description="sqlite:////path or postgresql+psycopg://..."
    )
    group: str = "eventproc-dispatcher"
    instance: str | None = Field(None, description="static membership: a name that stays over restarts")
    max_records: int = Field(200, ge=1, description="events in one transaction")
    flush_timeout_s: float = Field(10.0, gt=0)
    event_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="largest event, as JSON; less than REGISTRY_ANSWER_BYTES, which carries it",
    )


class SweeperSettings(BaseSettings):
    """How the sweeper goes about it; lease rules are LeaseSettings, shared with the registry."""

    model_config = SettingsConfigDict(env_prefix="SWEEPER_")

    every_s: float = Field(1.0, gt=0, description="pause between turns")
    lead_s: float = Field(15.0, gt=0, description="how long one that has died still keeps others from taking over")
    soon_s: float = Field(
        0.02,
        gt=0,
        description="the same while more is due than may be invited; up to ten times that while no slot comes free",
    )
    at_most: int = Field(1000, ge=1, description="invitations in one turn")
    unserved_after_s: float = Field(3600.0, gt=0, description="a run whose runtime nobody serves is refused after this")
    reconcile_every_s: float = Field(300.0, gt=0, description="between two comparisons of the books, for the metrics")
    look_every_s: float = Field(
        15.0, gt=0, description="between two looks at how long runs and emails have been due, for the metrics"
    )
    start_within_s: float = Field(60.0, gt=0, description="an event's runs should have started so soon: the promise")
    reconcile_over_s: float = Field(86_400.0, gt=0, description="how far back they go")
    reconcile_topics: bool = Field(True, description="compare with the events in Kafka, too: reads each once more")
    retain_every_s: float = Field(
        3600.0, gt=0, description="between two removals of what is too old (EVENTPROC_KEEP_*)"
    )
    retain_batch: int = Field(500, ge=1, le=5000, description="that go in one transaction")
    retain_pause_s: float = Field(0.05, ge=0, description="between two of those transactions")
    runtimes: str = Field("", validation_alias="REGISTRY_RUNTIMES", description="served runtimes, comma-separated")
    notifier_group: str = "eventproc-notifier"
    flush_timeout_s: float = Field(10.0, gt=0)

    def runtime_names(self) -> tuple[str, ...]:
        """The runtimes served, as names."""
        return tuple(name.strip() for name in self.runtimes.split(",") if name.strip())
