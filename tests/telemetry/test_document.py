"""docs/metrics.md is what the declarations say."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from telemetry import metrics
from telemetry.document import document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_page_is_what_the_declarations_say() -> None:
    assert PAGE.read_text() == document(), "make docs writes it anew"


def test_no_metric_is_left_out() -> None:
    names = [name for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)]
    assert document().count("| `eventproc_") == len(names)
