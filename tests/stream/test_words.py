"""What the Kafka client says, in our words."""

from __future__ import annotations

import pytest
from kafka.errors import InvalidReceiveError
from kafka.protocol.parser import KafkaProtocol

from schemas.errors import TryLater
from stream.kafka_words import consequences


def test_somebody_else_who_answers_at_the_brokers_address_is_waited_out() -> None:
    client = KafkaProtocol(client_id="client")
    with pytest.raises(TryLater, match="Invalid frame length"), consequences():
        client.receive_bytes(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")

    with pytest.raises(InvalidReceiveError):
        KafkaProtocol(client_id="client").receive_bytes(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
