"""Which schema a message was written by: our own, those in the topic eventproc.schemas, those of a Schema Registry."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog

from schemas.contracts import by_fingerprint, by_id, contract_of, contracts, learn, learn_id, write_with_id
from schemas.encoding import fingerprint_of, registry_id_of
from schemas.topics import SCHEMAS
from stream.broker import Admin, Producer
from stream.messages import Message
from stream.schema_registry import SchemaRegistry

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
FLUSH_S = 30.0
REMEMBERED = 1000

Unknown = bytes | int
"""A schema by its fingerprint or by the Schema Registry's id."""


class SchemaBook:
    """Learns schemas for the whole process (schemas/contracts keeps them), and tells the others what we write by."""

    def __init__(
        self,
        admin: Admin,
        producer: Producer,
        registry: SchemaRegistry | None = None,
        wait_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """wait_s: how long an unknown schema is waited for from when this process has met it first; then what is written by it
        counts as unreadable. clock: monotonic, in s; when a message was sent, by whose clock, does not matter."""
        self._admin = admin
        self._producer = producer
        self._registry = registry
        self._wait_s = wait_s
        self._clock = clock
        self._looked_at = float("-inf")
        self._seen: set[bytes] = set()
        self._asked: OrderedDict[int, float] = OrderedDict()  # registry ids that were not there, and when that was
        self._met: OrderedDict[Unknown, float] = OrderedDict()  # what was unknown, and when it was met first
        self._batch_at = float("-inf")

    def publish(self, written: Sequence[tuple[str, str]]) -> None:
        """Makes the contracts known before their first use; blocks. written: (contract's name, topic) pairs.

        Raises TryLater when the broker or the registry is away, SchemaRefused when the registry does not take one.
        """
        there = self._look_up()
        missing = {contracts()[name].fingerprint: contracts()[name] for name, _ in written}
        for fingerprint, contract in missing.items():
            if fingerprint not in there:
                value = json.dumps(contract.raw, separators=(",", ":")).encode()
                self._producer.send(SCHEMAS, value, key=fingerprint.hex().encode())
        self._producer.flush(FLUSH_S)
        if self._registry is not None:
            for name, topic in written:
                write_with_id(name, self._registry.register(topic, contracts()[name].raw))

    def batch(self) -> None:
        """Messages have come: none of them is given up by what was looked up before, for schemas are published before their use."""
        self._batch_at = self._clock()

    def missing(self, message: Message) -> str:
        """Why the message has to wait for its schema; '' when it has not, or has waited long enough to be given up.

        Blocks while it asks. Raises TryLater when the broker or the registry is away.
        """
        unknown = self._unknown(message)
        if unknown is None:
            return ""
        now = self._clock()
        left = self._met.get(unknown, now) + self._wait_s - now
        if isinstance(unknown, bytes):
            if unknown in self._look_up(left <= 0):
                return ""
            what = f"the Avro schema with fingerprint {unknown.hex()} is not in {SCHEMAS}"
        else:
            if self._fetched(unknown, left <= 0):
                return ""
            what = f"the Schema Registry has no Avro schema with id {unknown}"
        self._remember(unknown)
        return f"{what}; waiting for it for {left:.0f} s more" if left > 0 else ""

    def meet(self, message: Message) -> None:
        """Begins the wait for the message's schema when it is not known here; asks nobody.

        For messages that stand behind one that waits: their waits go on beside it, not one after the other.
        """
        unknown = self._unknown(message)
        if unknown is not None:
            self._remember(unknown)

    def _unknown(self, message: Message) -> Unknown | None:
        """What the message was written by, when that may have to be asked for and is not known here."""
        value = message.value or b""
        fingerprint = fingerprint_of(value)
        if fingerprint is not None:
            return None if fingerprint in by_fingerprint() else fingerprint
        schema_id = registry_id_of(value)
        return None if schema_id is None or self._registry is None or schema_id in by_id() else schema_id

    def _remember(self, unknown: Unknown) -> None:
        """Notes when it was met first; that is known of the REMEMBERED that were met last."""
        self._met.setdefault(unknown, self._clock())
        self._met.move_to_end(unknown)
        while len(self._met) > REMEMBERED:
            self._met.popitem(last=False)

    def _old(self, looked_at: float, over: bool) -> bool:
        """Whether to look again; over: something is about to be given up."""
        return self._clock() - looked_at >= LOOK_EVERY_S or (over and looked_at < self._batch_at)

    def _look_up(self, over: bool = False) -> set[bytes]:
        """Learns all that the topic holds; the fingerprints known then."""
        if self._old(self._looked_at, over):
            began = self._clock()
            for message in self._admin.read(SCHEMAS):
                try:
                    raw = json.loads(message.value or b"null")
                    contract = contract_of(raw["name"], raw)
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    place = f"{SCHEMAS}/{message.partition}/{message.offset}"
                    log.warning("not a schema", message=place, reason=f"{type(error).__name__}: {error}")
                else:
                    learn(contract)
                    self._seen.add(contract.fingerprint)
            self._looked_at = began
        return self._seen

    def _fetched(self, schema_id: int, over: bool) -> bool:
        if not self._old(self._asked.get(schema_id, float("-inf")), over):
            return False
        began = self._clock()
        assert self._registry is not None
        raw = self._registry.schema(schema_id)
        if raw is not None:
            try:
                learn_id(schema_id, contract_of(str(raw.get("name", "")), raw))
                return True
            except ValueError as error:
                log.error("the Schema Registry's schema is none", id=schema_id, reason=str(error))
        self._asked[schema_id] = began
        while len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return False
