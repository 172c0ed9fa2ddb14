"""python -m telemetry.document: docs/metrics.md, from the metrics as they are declared."""

from __future__ import annotations

import inspect
import re
import sys

from prometheus_client.metrics import MetricWrapperBase

from telemetry import metrics

HEAD = """# Metrics

Made by `make docs` from `telemetry/metrics.py`; each process serves at `/metrics` those that concern it. Times are in seconds, sizes
in bytes; what counts up ends in `_total`. No label is unbounded: an owner is one of the first fifty that a process sees, or `other`.
"""


def document() -> str:
    """The page: a table for each part of metrics.py that a comment begins."""
    names = {id(value): name for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}
    parts: list[str] = [HEAD]
    for line in inspect.getsource(metrics).splitlines():
        title = re.match(
            r"# ((?:the|dispatcher|executor|ingress|downloads|notifier|registry|promises|what|every)\b.*)", line
        )
        if title:
            parts.append(
                f"\n## {title[1][0].upper()}{title[1][1:]}\n\n| metric | kind | labels | what it tells |\n|---|---|---|---|\n"
            )
        declared = re.match(r"(\w+) = (?:Counter|Gauge|Histogram)\(", line)
        if declared:
            metric = getattr(metrics, declared[1])
            assert id(metric) in names
            parts.append(_row(metric))
    return "".join(parts)


def _row(metric: MetricWrapperBase) -> str:
    family = next(iter(metric.describe()))
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
