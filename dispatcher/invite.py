"""Invitation -> task message: run X may be claimed. Said by the dispatcher at once and by the sweeper again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ledger.fair import Invitation
from schemas.encoding import AVRO_TYPE, encode
from schemas.records import Task, to_plain
from schemas.topics import tasks_topic
from stream.broker import Producer
from telemetry import metrics

Headers = Sequence[tuple[str, bytes]]


def invite(
    producer: Producer, invitations: Sequence[Invitation], traces: Mapping[str, bytes], timeout_s: float
) -> None:
    """Sends one task per invitation and blocks until the broker has acknowledged all.

    traces: run id -> W3C traceparent, where the event carried one; timeout_s: how long to wait for the acknowledgement.
    Raises TryLater when the broker is away; saying it all again is harmless, for a claim decides.
    """
    now_ns = time.time_ns()
    for invitation in invitations:
        task = Task(invitation.run_id, invitation.owner, invitation.runtime, invitation.hook, now_ns)
        headers = [("content-type", AVRO_TYPE), ("ce_type", b"eventproc.task"), ("ce_id", invitation.run_id.encode())]
        if invitation.run_id in traces:
            headers.append(("traceparent", traces[invitation.run_id]))
        producer.send(
            tasks_topic(invitation.runtime),
            encode("task", to_plain(task)),
            key=invitation.run_id.encode(),
            headers=headers,
        )
    if invitations:
        producer.flush(timeout_s)
    for invitation in invitations:
        metrics.tasks_total.labels(runtime=invitation.runtime).inc()
