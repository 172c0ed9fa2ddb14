"""Which rights at Kafka each station needs, and no more: acls.json, in the words of Strimzi's KafkaUser.

Read and Write include Describe. "topics" is whoever makes the topics, which the stations themselves need not do
(EVENTPROC_KAFKA_MAKE_TOPICS=false); "admin" is eventproc-admin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("acls.json")


@dataclass(frozen=True)
class Acl:
    """One right. kind: topic or group; name: the resource's, or what its name begins with; operation: as Kafka names it."""

    kind: str
    name: str
    prefix: bool
    operation: str


@cache
def acls() -> Mapping[str, tuple[Acl, ...]]:
    """By station, the rights that it needs."""
    return {
        station: tuple(
            Acl(one["resource"]["type"], one["resource"]["name"], one["resource"]["patternType"] == "prefix", operation)
            for one in rights
            for operation in one["operations"]
        )
        for station, rights in json.loads(FILE.read_text()).items()
    }
