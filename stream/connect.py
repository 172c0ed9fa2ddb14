"""Settings -> broker."""

from __future__ import annotations

from stream.broker import Broker
from stream.kafka import KafkaBroker
from stream.settings import StreamSettings


def open_broker(settings: StreamSettings) -> Broker:
    """The Kafka that the settings name; connects when it is used first, so this does not block and does not fail."""
    return KafkaBroker(settings)
