"""Celery's side: a worker's application. Started by run.py in the peers' own environment."""

import os

import handler
from celery import Celery

URL = os.environ["BENCH_REDIS"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.task_serializer = app.conf.result_serializer = "json"


@app.task(name="rms")  # type: ignore[untyped-decorator]
def rms(values: list[float]) -> float:
    """The handler as a task."""
    return float(handler.rms(values))
