"""Every metric is declared once, in telemetry/metrics.py, and nothing else is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from telemetry import metrics

ROOT = Path(__file__).resolve().parents[2]
DECLARED = {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}
DECLARING = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
UNBOUNDED = {
    "run_id",
    "request_id",
    "owner",
    "handler",
    "handler_id",
    "user",
    "recipient",
    "lease_id",
    "stream",
    "file",
}
BY_OWNER = {"queue_wait_seconds"}  # labelled by telemetry.bounded.owner_label
RENAMED = {"runs_created_total": "eventproc_runs_queued_total"}


def _sources() -> Iterator[Path]:
    for top in sorted(ROOT.iterdir()):
        if top.is_dir() and not top.name.startswith(".") and top.name not in ("tests", "build", "dist"):
            yield from sorted(path for path in top.rglob("*.py") if "generated" not in path.parts)


def problems(source: str, where: str) -> list[str]:
    """What the source does with metrics that it should not."""
    found = []
    tree = ast.parse(source)
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "telemetry":
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "metrics"}
        if isinstance(node, ast.ImportFrom) and node.module == "telemetry.metrics":
            found += [f"{where}: {a.name} is not declared" for a in node.names if a.name not in DECLARED]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client"):
            found += [f"{where}: declares a {a.name} of its own" for a in node.names if a.name in DECLARING]
        if isinstance(node, ast.Import) and any(a.name.startswith("prometheus_client") for a in node.names):
            found.append(f"{where}: imports prometheus_client whole; metrics are declared in telemetry/metrics.py")
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules):
            continue
        if node.attr not in DECLARED:
            found.append(f"{where}:{node.lineno}: metrics.{node.attr} is not declared in telemetry/metrics.py")
    return found + _wrong_labels(tree, modules, where)


def _wrong_labels(tree: ast.AST, modules: set[str], where: str) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Attribute)
        ):
            continue
        of, method = node.func.value, node.func.attr
        if not (isinstance(of.value, ast.Name) and of.value.id in modules and of.attr in DECLARED):
            continue
        wanted = set(DECLARED[of.attr]._labelnames)
        given = {keyword.arg for keyword in node.keywords} if method == "labels" else set()
        if (method != "labels" and wanted) or (method == "labels" and given != wanted):
            found.append(
                f"{where}:{node.lineno}: {of.attr} has the labels {sorted(wanted)}, is given {sorted(map(str, given))}"
            )
    return found


def test_the_tree_uses_only_metrics_that_are_declared_and_declares_none_elsewhere() -> None:
    found = []
    for path in _sources():
        where = path.relative_to(ROOT).as_posix()
        if where != "telemetry/metrics.py":
            found += problems(path.read_text(), where)
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "from telemetry import metrics\nmetrics.no_such_total.inc()\n",
        "from telemetry import metrics as m\nm.no_such_total.inc()\n",
        "from telemetry.metrics import no_such_total\n",
        "from prometheus_client import Counter\n",
        "import prometheus_client\n",
        "from telemetry import metrics\nmetrics.results_total.inc()\n",
        "from telemetry import metrics\nmetrics.results_total.labels(state='x').inc()\n",
        "from telemetry import metrics\nmetrics.dead_letters_total.labels(topic='x').inc()\n",
    ],
)
def test_the_search_finds_what_is_not_allowed(source: str) -> None:
    assert problems(source, "station/verb.py")


def test_the_search_lets_pass_what_is_allowed() -> None:
    source = "from telemetry import metrics\nmetrics.results_total.labels(outcome='x').inc()\nmetrics.dead_letters_total.inc()\n"
    assert problems(source, "station/verb.py") == []


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_names_follow_the_rules_of_prometheus(name: str) -> None:
    metric = DECLARED[name]
    exposed = metric._name + ("_total" if isinstance(metric, Counter) else "")
    assert exposed == RENAMED.get(name, f"eventproc_{name}")
    assert re.fullmatch(r"[a-z][a-z_]*", name)
    assert isinstance(metric, (Counter, Gauge, Histogram))
    assert name.endswith("_total") == isinstance(metric, Counter)
    if isinstance(metric, Histogram):
        assert name.endswith(("_seconds", "_bytes"))
    assert not (UNBOUNDED - ({"owner"} if name in BY_OWNER else set())) & set(metric._labelnames)
    assert metric._documentation
