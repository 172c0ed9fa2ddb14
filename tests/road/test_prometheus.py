"""A real Prometheus scrapes the running stack: every record of the rules and every query of the board has something to show."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.grafana.board import board
from devstack.addresses import free_address
from examples.make_comtrade import fault_archive
from tests.deploy.test_rules import ALERTS, RULES

pytestmark = [
    pytest.mark.road,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here: make tools installs Debian's"),
]

PORT = 9090
POD_MONITOR = "events/eventproc"  # the name of the job that the chart's PodMonitor makes: <namespace>/<name>


class Prometheus:
    """A server of our own that scrapes the stack each second."""

    def __init__(self, road: Any, folder: Path) -> None:
        self.address = free_address(PORT)
        targets = [url.split("/")[2] for url in road.stack.layout.metrics_urls()]
        job = {"job_name": POD_MONITOR, "static_configs": [{"targets": targets, "labels": {"namespace": "events"}}]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [job],
        }
        rules = RULES.read_text().replace("interval: 30s", "interval: 1s")
        (folder / "rules.yaml").write_text(rules)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        log = (folder / "prometheus.log").open("w")
        self.targets = len(targets)
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}:{PORT}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip

    def ask(self, query: str) -> list[Any]:
        """What an instant query gives; [] also while the server does not answer yet."""
        url = f"http://{self.address}:{PORT}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def prometheus(road: Any, tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(road, tmp_path)
    yield server
    server.stop()


def use_everything(road: Any, tmp_path: Path) -> None:
    """An upload, its event, a run, an email."""
    tag = f"tag-{uuid.uuid4().hex[:8]}"

    def fine(**kwargs: Any) -> str:
        return "fine"

    road.register("seen", fine, [tag])
    fault_archive(tmp_path / "fault.zip")
    layout = road.stack.layout
    context = ssl.create_default_context(cafile=str(layout.certificates.ca))
    with httpx.Client(verify=context, timeout=60.0) as http:
        answer = http.post(
            f"https://{layout.at('ingress')}/v1/archives",
            params={"tags": tag},
            content=(tmp_path / "fault.zip").read_bytes(),
            headers={"Authorization": f"Bearer {layout.api_keys['alice']}"},
        )
    assert answer.status_code == 202, answer.text
    road.ended(answer.json()["RequestID"], 1)
    road.mail_to("seen@example.com")


def test_every_record_and_every_panel_has_data(road: Any, prometheus: Prometheus, tmp_path: Path) -> None:
    road.wait_for(lambda: len(prometheus.ask("up == 1")) == prometheus.targets, "all targets to be up")
    use_everything(road, tmp_path)
    groups = yaml.safe_load(RULES.read_text())["groups"]
    wanted = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    for panel in board()["panels"]:
        wanted.update(target["expr"].replace("$__rate_interval", "5m") for target in panel.get("targets", ()))

    def empty() -> list[str]:
        return sorted(query for query in wanted if not prometheus.ask(query))

    road.wait_for(lambda: not empty() or None, "every query to have data", 200.0) if empty() else None
    assert empty() == []


def alert(name: str) -> str:
    return str(ALERTS[name]["expr"])


def test_alerts_know_the_targets_whatever_their_job_is_called(road: Any, prometheus: Prometheus) -> None:
    loops = alert("EventprocCrashLooping").replace("> 3", ">= 0")
    road.wait_for(lambda: len(prometheus.ask(loops)) == prometheus.targets or None, "each target to be looked at")
    assert {one["metric"]["job"] for one in prometheus.ask(loops)} == {POD_MONITOR}
    ready = alert("EventprocNotReady").replace("== 0", ">= 0")
    stations = {"registry", "dispatcher", "executor", "notifier"}
    road.wait_for(
        lambda: stations <= {one["metric"]["station"] for one in prometheus.ask(ready)} or None,
        "every station's checks",
    )
    assert prometheus.ask(alert("EventprocStationAbsent")) == []
