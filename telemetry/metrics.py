"""Every Prometheus metric, declared once. The attribute is the metric's name without its prefix, eventproc_.

Units are base units (seconds, bytes). Labels are bounded: hooks, topics, runtimes, outcomes; never a run or a handler; an
owner only by telemetry/bounded.py.
Naming follows https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# a _created series beside each counter would double their number and tell nothing
disable_created_metrics()  # type: ignore[no-untyped-call]

ROUND_TRIP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAITING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
RUNNING = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0)

# the belt
messages_total = Counter(
    "eventproc_messages_total", "Messages taken from Kafka, by what became of them", ["topic", "outcome"]
)
dead_letters_total = Counter("eventproc_dead_letters_total", "Messages moved to the dead letters")
consumer_lag = Gauge(
    "eventproc_consumer_lag", "Messages not yet taken, over this process's partitions", ["group", "topic"]
)

partitions_held = Gauge(
    "eventproc_partitions_held",
    "Partitions of this process that wait for a schema, or for somebody to see to bad messages",
)

# ingress over HTTP
archives_total = Counter("eventproc_archives_total", "Uploaded archives that came to an end", ["outcome"])
archives_state = Gauge("eventproc_archives_state", "Uploaded archives, by state", ["state"])
uploads_total = Counter("eventproc_uploads_total", "Uploads answered", ["code"])

# downloads
downloads_total = Counter("eventproc_downloads_total", "Downloads answered", ["code"])

# dispatcher
events_dispatched_total = Counter("eventproc_events_dispatched_total", "Events dispatched for the first time", ["hook"])
# not eventproc_runs_created_total: OpenMetrics keeps that name for the time at which eventproc_runs_total was created
runs_created_total = Counter("eventproc_runs_queued_total", "Runs made for matching handlers", ["hook"])
dispatch_seconds = Histogram(
    "eventproc_dispatch_seconds", "From a batch of events to its invitations", buckets=ROUND_TRIP
)
tasks_total = Counter("eventproc_tasks_total", "Invitations sent", ["runtime"])
leases_lost_total = Counter("eventproc_leases_lost_total", "Runs freed because their lease had ended")

# executor
claims_total = Counter("eventproc_claims_total", "Claims answered", ["answer"])
slots = Gauge("eventproc_slots", "Handlers that may run at a time in this executor")
slots_busy = Gauge("eventproc_slots_busy", "Handlers that are running", ["runtime"])
zygote_bytes = Gauge("eventproc_zygote_bytes", "Private memory of the runtime's zygote", ["runtime"])
warm_children = Gauge("eventproc_warm_children", "Children made ready ahead", ["runtime"])
sandbox_level = Gauge(
    "eventproc_sandbox_level", "1: the level at which a runtime's sandbox stands", ["runtime", "level"]
)
sandbox_layer = Gauge(
    "eventproc_sandbox_layer", "1: the layer of the sandbox is on; 0: it cannot be had here", ["layer"]
)
queue_wait_seconds = Histogram(
    "eventproc_queue_wait_seconds", "From a run's queueing to its claim", ["owner"], buckets=WAITING
)
handler_start_seconds = Histogram(
    "eventproc_handler_start_seconds", "From the task in hand to the handler's first line", buckets=ROUND_TRIP
)
runs_total = Counter("eventproc_runs_total", "Attempts that ended in this executor", ["runtime", "outcome"])
run_seconds = Histogram("eventproc_run_seconds", "How long handlers ran", ["runtime"], buckets=RUNNING)

# notifier
results_total = Counter(
    "eventproc_results_total", "Results taken: closed, retried, or stale (not of the present lease)", ["outcome"]
)
emails_total = Counter("eventproc_emails_total", "Attempts to send an email: sent, postponed, given_up", ["outcome"])
emails_pending = Gauge("eventproc_emails_pending", "Emails in the outbox that are neither sent nor given up")
email_seconds = Histogram("eventproc_email_seconds", "Handing one email to the SMTP server", buckets=ROUND_TRIP)
files_removed_total = Counter("eventproc_files_removed_total", "Files of handlers removed for their age")

# registry and ledger
ledger_seconds = Histogram("eventproc_ledger_seconds", "Transactions of the ledger", ["operation"], buckets=ROUND_TRIP)
grpc_requests_total = Counter("eventproc_grpc_requests_total", "gRPC calls answered", ["method", "code"])
grpc_seconds = Histogram("eventproc_grpc_seconds", "gRPC calls, from request to answer", ["method"], buckets=ROUND_TRIP)

# the ledger's books, by whoever leads the reconciliation
unaccounted = Gauge(
    "eventproc_unaccounted", "What does not add up in the ledger, by kind; 0 when all is well", ["kind"]
)
runs_state = Gauge("eventproc_runs_state", "Runs of the last day, by state", ["state"])
emails_state = Gauge("eventproc_emails_state", "Emails of the last day, by state", ["state"])
oldest_queued_seconds = Gauge(
    "eventproc_oldest_queued_seconds",
    "How long the run that waits longest has been due, by runtime served; other: of runtimes that nobody serves",
    ["runtime"],
)
oldest_email_seconds = Gauge(
    "eventproc_oldest_email_seconds",
    "How long the email that waits longest has been due; one that waits to be tried again is not due",
)

# what is kept, by the dispatcher that removes what is too old
kept_bytes = Gauge("eventproc_kept_bytes", "What is kept in the ledger (with indexes) and in object stores", ["kind"])
removed_total = Counter("eventproc_removed_total", "Removed for their age (EVENTPROC_KEEP_*)", ["kind"])

# promises kept
events_started_total = Counter(
    "eventproc_events_started_total",
    "Events that have had their time, by whether all runs that no cap held back had started within it",
    ["in_time"],
)
runs_mailed_total = Counter(
    "eventproc_runs_mailed_total", "Runs whose email, their own or a digest, was sent or given up", ["outcome"]
)

for _word in ("yes", "no"):  # a ratio needs both sides from the first scrape on
    events_started_total.labels(in_time=_word)
for _word in ("sent", "given_up"):
    runs_mailed_total.labels(outcome=_word)

# what expires
certificate_not_after_seconds = Gauge(
    "eventproc_certificate_not_after_seconds",
    "When a certificate that this process serves ends, since the epoch",
    ["certificate"],
)
certificate_unusable = Gauge(
    "eventproc_certificate_unusable",
    "1: a certificate's files are not usable, and the one before is served",
    ["certificate"],
)
api_keys_unreadable = Gauge(
    "eventproc_api_keys_unreadable", "1: the keys file cannot be read now, and the keys that it held before count on"
)
api_key_not_after_seconds = Gauge(
    "eventproc_api_key_not_after_seconds", "When the first API key with an end ends, since the epoch; +Inf for none"
)

# every process
ready = Gauge(
    "eventproc_ready",
    "1: what a station's process needs (kafka, ledger, registry, smtp, ...) answers; 0: it does not, /readyz says why",
    ["station", "check"],
)
last_turn_age_seconds = Gauge("eventproc_last_turn_age_seconds", "Since the main loop last turned")
