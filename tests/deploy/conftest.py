"""The chart, rendered once with all sorts of values."""

from __future__ import annotations

import pytest

from tests.deploy import chart
from tests.deploy.chart import LEAST, MUCH, MUTUAL_TLS, OAUTH, STRIMZI

SORTS = {
    "least": (LEAST,),
    "strimzi": (LEAST, STRIMZI),
    "much": (LEAST, MUCH),
    "strimzi and much": (LEAST, STRIMZI, MUCH),
    "oauth and hpa": (LEAST, OAUTH),
    "mutual TLS": (LEAST, MUTUAL_TLS),
    "the example": (chart.EXAMPLE,),
    "full sandbox": (LEAST, MUCH, {"executor": {"sandbox": {"level": "full", "hostUsers": False}}}),
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, chart.Rendered]:
    """All sorts of values, rendered."""
    return {
        name: chart.render(tmp_path_factory.mktemp("values"), *layers) for name, layers in SORTS.items()
    }  # fmt: skip


@pytest.fixture(params=list(SORTS))
def one(request: pytest.FixtureRequest, rendered: dict[str, chart.Rendered]) -> chart.Rendered:
    return rendered[request.param]
