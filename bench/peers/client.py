"""python client.py celery|rq COUNT: queues so many jobs, says 'queued', waits for all, prints when each ended as JSON."""

import datetime
import json
import os
import sys
import time
from collections.abc import Callable

from redis import Redis

PATIENCE_S = 180.0
VALUES = [index % 50 / 7 for index in range(200)]
WANTED = 4.062


def celery(count: int) -> list[float]:
    """Seconds since the epoch at which the tasks ended."""
    from celery_app import rms

    sent = [rms.delay(VALUES) for _ in range(count)]
    print("queued", flush=True)
    _wait(lambda: sum(1 for _ in Redis.from_url(os.environ["BENCH_REDIS"]).scan_iter("celery-task-meta-*")) >= count)
    assert all(abs(task.result - WANTED) < 0.001 for task in sent), "a task failed"
    return [task.date_done.replace(tzinfo=datetime.UTC).timestamp() for task in sent]


def rq(count: int) -> list[float]:
    """The same for RQ's jobs."""
    from rq import Queue
    from rq.job import Job

    connection = Redis.from_url(os.environ["BENCH_REDIS"])
    queue = Queue("bench", connection=connection)
    sent = [queue.enqueue("handler.rms", VALUES) for _ in range(count)]
    print("queued", flush=True)
    _wait(lambda: queue.finished_job_registry.count + queue.failed_job_registry.count >= count)
    done = Job.fetch_many([job.id for job in sent], connection=connection)
    assert all(abs(job.return_value() - WANTED) < 0.001 for job in done), "a job failed"
    return [job.ended_at.replace(tzinfo=datetime.UTC).timestamp() for job in done]


def _wait(over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not over():
        if time.monotonic() > deadline:
            raise SystemExit(f"the jobs did not end within {PATIENCE_S:g} s")
        time.sleep(0.25)


if __name__ == "__main__":
    Redis.from_url(os.environ["BENCH_REDIS"]).flushdb()
    print(json.dumps({"celery": celery, "rq": rq}[sys.argv[1]](int(sys.argv[2]))))
