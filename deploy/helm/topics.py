"""python -m deploy.helm.topics: the chart's files/topics.json, which Strimzi's KafkaTopics are made from, out of schemas/."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from schemas.topics import TASKS_PREFIX, Topic, topics
from stream.sizes import batch_limit

FILE = Path(__file__).parent / "eventproc" / "files" / "topics.json"
ANY = "any"


def text() -> str:
    """The file as it should be: a topic that each runtime has one of has "runtime", and a name to put the runtime's after."""
    return json.dumps([_plain(topic) for topic in topics((ANY,))], indent=2) + "\n"


def _plain(topic: Topic) -> dict[str, Any]:
    plain = {**asdict(topic), "overhead_bytes": batch_limit(topic.name, 0)}
    return plain | {"name": TASKS_PREFIX, "runtime": True} if topic.name == TASKS_PREFIX + ANY else plain


if __name__ == "__main__":
    FILE.write_text(text())
