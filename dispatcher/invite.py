"""Invitation -> task message: run X may be claimed. Said by the dispatcher at once and by the sweeper again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from ledger.fair import Invitation
from schemas.encoding import AVRO_TYPE, encode
from schemas.records import Task, to_plain
from schemas.topics import tasks_topic
from stream.broker import Producer
from telemetry import metrics, traces

Headers = list[tuple[str, bytes]]


def invite(producer: Producer, invitations: Sequence[Invitation], traced: Mapping[str, str]) -> None:
    """Hands one task per invitation to the producer; producer.flush() tells whether the broker has them.

    traced: run id -> W3C traceparent, or ''. Raises TryLater when the broker is away; saying it all again
    is harmless, for a claim decides.
    """
    now_ns = time.time_ns()
    for invitation in invitations:
        value, key, headers = task_message(invitation, now_ns)
        headers.extend(traces.as_header(traced.get(invitation.run_id, "")))
        producer.send(tasks_topic(invitation.runtime), value, key=key, headers=headers)
    for runtime, count in Counter(invitation.runtime for invitation in invitations).items():
        metrics.tasks_total.labels(runtime=runtime).inc(count)


def task_message(invitation: Invitation, now_ns: int) -> tuple[bytes, bytes, Headers]:
    """The task as it goes to Kafka: value, key, headers. now_ns: ns since the epoch."""
    task = Task(invitation.run_id, invitation.owner, invitation.runtime, invitation.hook, now_ns)
    key = invitation.run_id.encode()
    return (
        encode("task", to_plain(task)),
        key,
        [("content-type", AVRO_TYPE), ("ce_type", b"eventproc.task"), ("ce_id", key)],
    )
