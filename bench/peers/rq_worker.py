"""RQ's side: a worker that has imported the handler's modules, as RQ's manual advises, so that its forks have them."""

import os

import handler  # noqa: F401
from redis import Redis
from rq import Queue, Worker

connection = Redis.from_url(os.environ["BENCH_REDIS"])
Worker([Queue("bench", connection=connection)], connection=connection).work(burst=True, logging_level="ERROR")
