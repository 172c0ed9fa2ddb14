"""python -m deploy.grafana.board: eventproc.json, the one Grafana board, from the road's left to its right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "eventproc.json"
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """title: a question of an operator's; queries: (PromQL, legend); unit: Grafana's; kind: its panel."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""


def _quantile(share: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


ROWS: dict[str, Sequence[Panel]] = {
    "Promises": (
        Panel("Events late (budget 0.1 %)", [("eventproc:events_late:ratio_rate1h", "last hour")], "percentunit", "stat"),
        Panel("Runs without their email (budget 0.01 %)", [("eventproc:runs_unmailed:ratio_rate1h", "last hour")], "percentunit", "stat"),
        Panel("Due for longest", [("eventproc:oldest_queued_seconds:max", "{{runtime}}")], "s", "stat"),
        Panel("Does not add up", [("sum(eventproc_unaccounted)", "")], "short", "stat", "eventproc-admin reconcile names it"),
    ),
    "Ingress": (
        Panel("Uploads answered", [("sum by (code) (rate(eventproc_uploads_total[$__rate_interval]))", "{{code}}")], "reqps"),
        Panel("Uploaded archives", [("max by (state) (eventproc_archives_state)", "{{state}}")]),
    ),
    "Events": (
        Panel("Are events coming?", [("eventproc:events:rate5m", "{{hook}}")], "cps"),
        Panel("Runs made", [("sum by (hook) (rate(eventproc_runs_queued_total[$__rate_interval]))", "{{hook}}")], "cps"),
        Panel("Behind, in messages", [("eventproc:consumer_lag:sum", "{{topic}}")]),
        Panel("Unreadable messages", [("sum(increase(eventproc_dead_letters_total[$__rate_interval]))", "dead letters")]),
    ),
    "Runs": (
        Panel(
            "How long do runs wait?",
            [(_quantile(0.5, "eventproc_queue_wait_seconds"), "p50"), (_quantile(0.99, "eventproc_queue_wait_seconds"), "p99")],
            "s",
        ),
        Panel("Whose runs wait (p99)?", [(_quantile(0.99, "eventproc_queue_wait_seconds", "owner"), "{{owner}}")], "s"),
        Panel("How do they end?", [("sum by (outcome) (rate(eventproc_runs_total[$__rate_interval]))", "{{outcome}}")], "cps"),
        Panel("How long do they take (p99)?", [(_quantile(0.99, "eventproc_run_seconds", "runtime"), "{{runtime}}")], "s"),
        Panel("Runs by state", [("max by (state) (eventproc_runs_state)", "{{state}}")]),
    ),
    "Executors": (
        Panel("Slots in use", [("eventproc:slots_busy:ratio", "share")], "percentunit"),
        Panel("Task in hand to first line (p99)", [(_quantile(0.99, "eventproc_handler_start_seconds"), "p99")], "s"),
        Panel("Warm children", [("sum by (runtime) (eventproc_warm_children)", "{{runtime}}")]),
        Panel("Is the sandbox at full strength?", [("eventproc:sandbox_layer:min", "{{layer}}")], "short", "stat"),
        Panel("Lost with their executors", [("sum(increase(eventproc_leases_lost_total[$__rate_interval]))", "runs")]),
    ),
    "Emails": (
        Panel("Are emails leaving?", [("sum by (outcome) (rate(eventproc_emails_total[$__rate_interval]))", "{{outcome}}")], "cps"),
        Panel("Waiting to be sent", [("eventproc:emails_pending:max", "emails")]),
        Panel("Due for longest", [("max(eventproc_oldest_email_seconds)", "email")], "s"),
        Panel("Handing one over (p99)", [(_quantile(0.99, "eventproc_email_seconds"), "p99")], "s"),
    ),
    "Underneath": (
        Panel("What does not answer?", [("sum by (station, check) (eventproc_ready == bool 0)", "{{station}}: {{check}}")]),
        Panel("Ledger (p99)", [("eventproc:ledger_seconds:p99_5m", "{{operation}}")], "s"),
        Panel("gRPC calls", [("sum by (method, code) (rate(eventproc_grpc_requests_total[$__rate_interval]))", "{{method}} {{code}}")]),
        Panel("What is kept", [("max by (kind) (eventproc_kept_bytes)", "{{kind}}")], "bytes"),
        Panel("Main loops' last turn", [("max by (instance) (eventproc_last_turn_age_seconds)", "{{instance}}")], "s"),
        Panel(
            "Certificates end in",
            [("min by (certificate) (eventproc_certificate_not_after_seconds) - time()", "{{certificate}}")], "s", "stat",
        ),
    ),
}  # fmt: skip


def board() -> dict[str, Any]:
    """The board as Grafana imports it."""
    return {
        "uid": "eventproc",
        "title": "Event Processing",
        "tags": ["eventproc"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for title, panels in ROWS.items():
        yield {"id": number, "type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}}
        number, top = number + 1, top + 1
        width = COLUMNS // len(panels)
        height = 4 if all(panel.kind == "stat" for panel in panels) else 8
        for place, panel in enumerate(panels):
            yield _panel(panel, number, {"x": place * width, "y": top, "w": width, "h": height})
            number += 1
        top += height


def _panel(panel: Panel, number: int, where: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": SOURCE}
        for place, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.about, "datasource": SOURCE,
        "gridPos": where, "targets": targets, "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
    }  # fmt: skip


if __name__ == "__main__":
    FILE.write_text(json.dumps(board(), indent=1) + "\n")
    sys.stdout.write(f"written to {FILE.name}\n")
