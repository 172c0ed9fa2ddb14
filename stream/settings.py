"""How to reach Kafka, from the environment; the same for every station."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from stream.loop import Limits
from stream.schema_registry import SchemaRegistry
from stream.security import SecuritySettings
from stream.sizes import MIB


class StreamSettings(SecuritySettings):
    """KAFKA_BOOTSTRAP_SERVERS and EVENTPROC_KAFKA_*."""

    model_config = SettingsConfigDict(env_prefix="EVENTPROC_KAFKA_", populate_by_name=True, hide_input_in_errors=True)

    bootstrap_servers: str = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="host:port pairs, comma-separated",
        pattern=r"[^\s,]",
    )
    max_message_bytes: int = Field(
        8 * MIB, ge=MIB, validation_alias="EVENTPROC_MAX_MESSAGE_BYTES", description="topics and clients"
    )
    replication: int = Field(3, ge=1, description="replicas of the topics that are made")
    make_topics: bool = Field(True, description="false: somebody else makes them; no station needs the right to, then")
    request_timeout_ms: int = Field(10_000, ge=1000)
    session_timeout_ms: int = Field(15_000, ge=6000)
    heartbeat_interval_ms: int = Field(
        1000, ge=100, le=2000, description="a member learns of a rebalance by it: so long partitions wait to move"
    )
    max_poll_interval_ms: int = Field(300_000, ge=1000, description="a loop that hangs for longer loses its partitions")

    compression: str = Field("gzip", pattern="^(none|gzip)$", description="of what is sent")

    unreadable_share: float = Field(
        0.5, gt=0, le=1, description="of recent messages: a partition with more is held, not dead-lettered; 1: never"
    )
    unreadable_window: int = Field(100, ge=100, description="how many messages count as recent")
    held_s: float = Field(60.0, gt=0, description="between two looks at a held partition")
    schema_wait_s: float = Field(
        60.0, ge=0, description="how long each process waits for a schema that it does not know"
    )
    schema_registry_url: str = Field(
        "", validation_alias="EVENTPROC_SCHEMA_REGISTRY_URL", description="read and write its framing; empty: none"
    )
    schema_registry_user: str = Field("", validation_alias="EVENTPROC_SCHEMA_REGISTRY_USER")
    schema_registry_password: SecretStr = Field(SecretStr(""), validation_alias="EVENTPROC_SCHEMA_REGISTRY_PASSWORD")
    schema_registry_ca: Path | None = Field(None, validation_alias="EVENTPROC_SCHEMA_REGISTRY_CA")

    def limits(self) -> Limits:
        """The same as the loop takes them."""
        return Limits(self.unreadable_share, self.unreadable_window, self.held_s)

    def schema_registry(self) -> SchemaRegistry | None:
        """The Schema Registry, when there is one."""
        if not self.schema_registry_url:
            return None
        password = self.schema_registry_password.get_secret_value()
        return SchemaRegistry(self.schema_registry_url, self.schema_registry_user, password, self.schema_registry_ca)

    def connection(self) -> dict[str, Any]:
        """What every Kafka client needs, as kafka-python names it."""
        return {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()],
            "request_timeout_ms": self.request_timeout_ms,
            "reconnect_backoff_ms": 50,
            "reconnect_backoff_max_ms": 2000,
            **self.secured(),
        }
