"""The real broker, over kafka-python 3. Its errors become TryLater where time heals them; the rest stops the process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import structlog
from kafka import KafkaProducer
from kafka import errors as kafka_errors

from faults import point
from schemas.errors import InvalidMessage, TryLater
from stream.broker import Admin, Consumer, Headers, Producer
from stream.kafka_admin import KafkaDesk
from stream.kafka_member import KafkaMember
from stream.kafka_words import HEALS, LOST_COUNT, consequences, explained
from stream.settings import StreamSettings
from stream.sizes import ENVELOPE_BYTES, OVERHEAD_BYTES, value_limit

log = structlog.get_logger()

T = TypeVar("T")

BATCH_BYTES = 64 * 1024  # fewer and larger batches than the 16 KiB that are usual: each wakes the sending thread


class KafkaSender:
    """A Producer. Each thread waits for its own messages only; connects when it sends first.

    kafka-python's idempotent producer does not recover once a batch has run out of time (3.0.12: its epoch is never bumped and
    nothing is sent any more), so after a flush that failed the client is thrown away and the next send makes a new one. What
    the old one still held is given up: its senders are told TryLater and send again.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None
        self._sent = threading.local()

    def send(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> None:
        most = value_limit(topic, self._settings.max_message_bytes)
        if value is not None and len(value) > most:
            raise InvalidMessage(
                f"a message for {topic} has {len(value)} bytes; at most {most} are allowed (EVENTPROC_MAX_MESSAGE_BYTES)",
                value,
            )
        client = self._connected()
        point("produce.before_send")
        try:
            with consequences():
                future = client.send(topic, value=value, key=key, headers=list(headers))
        except kafka_errors.MessageSizeTooLargeError as error:
            raise InvalidMessage(f"a message for {topic} is too large: {error}", value or b"") from error
        except kafka_errors.KafkaError as error:
            self._unless_given_up(client, error)
            raise
        self._unacknowledged().append((client, future, topic, value))

    def flush(self, timeout_s: float) -> None:
        waiting = self._unacknowledged()
        self._sent.futures = []
        deadline = time.monotonic() + timeout_s
        point("produce.before_flush")
        for client, future, topic, value in waiting:
            try:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
            except kafka_errors.MessageSizeTooLargeError as error:
                size = len(value or b"")
                raise InvalidMessage(
                    f"a message for {topic} has {size} bytes, more than the topic takes: {error}", value or b""
                ) from error
            except (*HEALS, *LOST_COUNT) as error:
                self._give_up(client)
                raise TryLater(explained(error)) from error
            except kafka_errors.KafkaError as error:
                self._unless_given_up(client, error)
                raise
        point("produce.after_flush")

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            _end(client, 1.0)

    def _connected(self) -> Any:
        settings = self._settings
        with self._lock:
            if self._client is None:
                with consequences():
                    self._client = KafkaProducer(
                        **settings.connection(),
                        acks="all",
                        enable_idempotence=True,
                        linger_ms=0,
                        batch_size=BATCH_BYTES,
                        # kafka-python's CRC-32C is plain Python and costs more than all else about a small message; over
                        # compressed bytes it is a third (make bench-dispatch), and brokers keep and send less
                        compression_type=None if settings.compression == "none" else settings.compression,
                        max_request_size=settings.max_message_bytes + ENVELOPE_BYTES + OVERHEAD_BYTES,
                        max_block_ms=settings.request_timeout_ms,
                        delivery_timeout_ms=settings.request_timeout_ms * 3,
                        allow_auto_create_topics=False,
                        bootstrap_timeout_ms=settings.request_timeout_ms,
                    )
            return self._client

    def _give_up(self, client: Any) -> None:
        with self._lock:
            if self._client is not client:
                return
            self._client = None
        _end(client, 0.0)

    def _unless_given_up(self, client: Any, error: BaseException) -> None:
        """Another thread may have thrown the client away while this one was using it; or it is of no more use.

        A producer that was refused its id (it may write to no topic yet) says so for ever after, and with a KafkaError only.
        """
        if "AuthorizationFailed" in str(error):
            self._give_up(client)
            raise TryLater(explained(error)) from error
        with self._lock:
            if self._client is not client:
                raise TryLater(explained(error)) from error

    def _unacknowledged(self) -> list[tuple[Any, Any, str, bytes | None]]:
        if not hasattr(self._sent, "futures"):
            self._sent.futures = []
        waiting: list[tuple[Any, Any, str, bytes | None]] = self._sent.futures
        return waiting


def _end(client: Any, timeout_s: float) -> None:
    """Closes a KafkaProducer for good. Its own close() leaves the thread running when something cannot be sent."""
    if timeout_s > 0:
        with contextlib.suppress(kafka_errors.KafkaError):
            client.close(timeout=timeout_s)
            return
    client._sender.force_close()
    client._sender.join(1.0)
    with contextlib.suppress(kafka_errors.KafkaError):
        client.close(timeout=0)


class KafkaBroker:
    """The Broker that the settings name."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._opened: list[Any] = []

    def producer(self) -> Producer:
        return self._keep(KafkaSender(self._settings))

    def consumer(self, topics: Sequence[str], group: str, *, instance: str | None = None) -> Consumer:
        return self._keep(KafkaMember(self._settings, topics, group, instance))

    def admin(self) -> Admin:
        return self._keep(KafkaDesk(self._settings))

    def close(self) -> None:
        for opened in reversed(self._opened):
            opened.close()
        self._opened.clear()

    def _keep(self, opened: T) -> T:
        self._opened.append(opened)
        return opened
