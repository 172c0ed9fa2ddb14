"""Settings -> broker."""

from __future__ import annotations

from stream.broker import Admin, Broker, Producer
from stream.kafka import KafkaBroker
from stream.schema_book import SchemaBook
from stream.settings import StreamSettings


def open_broker(settings: StreamSettings) -> Broker:
    """The Kafka that the settings name; connects when it is used first, so this does not block and does not fail."""
    return KafkaBroker(settings)


def open_book(settings: StreamSettings, admin: Admin, producer: Producer) -> SchemaBook:
    """The schemas of all who write here; asks when it is asked first, so this does not block and does not fail."""
    return SchemaBook(admin, producer, settings.schema_registry(), settings.schema_wait_s)
