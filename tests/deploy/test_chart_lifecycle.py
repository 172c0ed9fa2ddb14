"""Real Helm installs, upgrades, rolls back and uninstalls the chart, at an API server in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import chart
from tests.deploy.api_server import ApiServer, api_server
from tests.deploy.chart import CHART, LEAST, Plain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chart.helm() is None, reason="there is no Helm; `make tools` builds it"),
]
MADE_ONCE = {"eventproc-seal", "eventproc-service-token", "eventproc-registry-tls"}


class Release:
    """It, in the namespace `events` of that cluster."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self.api = api
        self._folder = folder

    def helm(self, verb: str, *arguments: str) -> None:
        program = chart.helm()
        assert program is not None
        command = [program, verb, "eventproc", "-n", "events", *self.api.arguments(self._folder), *arguments]
        env = {**os.environ, "HELM_CACHE_HOME": str(self._folder / "cache")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
        assert done.returncode == 0, done.stderr

    def brought(self, verb: str, *layers: Mapping[str, Any]) -> None:
        """install or upgrade with these values."""
        file = chart.values_file(self._folder, LEAST, *layers)
        self.helm(verb, str(CHART), "-f", str(file), "--disable-openapi-validation", "--timeout", "60s")


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    with api_server() as api:
        yield Release(api, tmp_path)


def secrets(release: Release) -> dict[str, Plain]:
    return {name: secret["data"] for name, secret in release.api.of("Secret").items()}


def test_a_secret_that_was_made_and_rotated_since_survives_upgrade_rollback_and_uninstall(release: Release) -> None:
    release.brought("install")
    made = secrets(release)
    assert set(made) == MADE_ONCE
    rotated = release.api.of("Secret")["eventproc-seal"]
    release.api.add({**rotated, "data": {"seal-keys": "bmV3ZXI="}})
    wanted = {**made, "eventproc-seal": {"seal-keys": "bmV3ZXI="}}

    release.brought("upgrade", {"dispatcher": {"replicas": 3}})
    assert secrets(release) == wanted
    assert release.api.of("Deployment")["eventproc-dispatcher"]["spec"]["replicas"] == 3

    release.helm("rollback", "1")
    assert release.api.of("Deployment")["eventproc-dispatcher"]["spec"]["replicas"] == 2
    assert secrets(release) == wanted, "what was sealed since could not be opened any more"

    release.helm("uninstall")
    assert secrets(release) == wanted
    left = {kind for kind in ("Deployment", "Job", "NetworkPolicy", "ServiceAccount") if release.api.of(kind)}
    assert not left

    release.brought("install")
    assert secrets(release) == wanted


def test_a_job_runs_under_its_own_release_s_policy_which_goes_after_it(release: Release) -> None:
    for verb in ("install", "upgrade"):
        release.api.log.clear()
        release.brought(verb, {"ledger": {"port": 5432 if verb == "install" else 6432}})

        steps = [(what, kind) for what, kind, name in release.api.log if name == "eventproc-migrations"]
        assert steps == [
            ("create", "NetworkPolicy"), ("create", "Job"), ("delete", "Job"), ("delete", "NetworkPolicy"),
        ]  # fmt: skip
        assert "eventproc-default-deny" in release.api.of("NetworkPolicy")


def test_scaling_that_is_switched_on_leaves_the_pods_that_there_are(release: Release) -> None:
    def replicas(name: str) -> object:
        return release.api.of("Deployment")[f"eventproc-{name}"]["spec"].get("replicas")

    release.brought("install", {"registry": {"replicas": 7}})
    assert (replicas("registry"), replicas("notifier")) == (7, 2)

    release.brought("upgrade", {"autoscaling": {"kind": "hpa"}})

    assert (replicas("registry"), replicas("notifier"), replicas("dispatcher")) == (7, 2, 2)
    assert set(release.api.of("HorizontalPodAutoscaler")) >= {"eventproc-registry", "eventproc-notifier"}


def test_a_first_install_leaves_the_number_of_pods_to_the_scaler(release: Release) -> None:
    release.brought("install", {"autoscaling": {"kind": "hpa"}})
    assert "replicas" not in release.api.of("Deployment")["eventproc-registry"]["spec"]
