"""Mistakes in the chart's values are refused by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.deploy import chart
from tests.deploy.chart import (
    CHART,
    LEAST,
    Plain,
    refusal,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chart.helm() is None, reason="there is no Helm; `make tools` builds it"),
]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kafka": {"bootstrapServer": "kafka:9092"}}, "bootstrapServer"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "bootstrapServers"),
        ({"kafka": {"auth": {"type": "scram"}}}, "type"),
        ({"btrdb": {"endpoint": "btrdb.example.com"}}, "endpoint"),
        ({"ledger": {"existingSecret": ""}}, "existingSecret"),
        ({"ledger": {"roles": "eventproc"}}, "roles"),
        ({"mail": {"from": "eventproc"}}, "from"),
        ({"mail": {"smtp": {"security": "ssl"}}}, "security"),
        ({"executor": {"sandbox": {"level": "strong"}}}, "level"),
        ({"executor": {"slots": 0}}, "slots"),
        ({"executor": {"runtimes": {"python3.11": {}}}}, "python3.11"),
        ({"executor": {"runtimes": {"py3.11": {"slot": 2}}}}, "slot"),
        ({"registry": {"replicas": "two"}}, "replicas"),
        ({"registry": {"env": {"log-level": "x"}}}, "log-level"),
        ({"storage": {"files": "/var/files"}}, "files"),
        ({"autoscaling": {"kind": "vpa"}}, "kind"),
        ({"logLevel": "verbose"}, "logLevel"),
        ({"replicaCount": 3}, "replicaCount"),
    ],
)
def test_a_mistake_is_refused_by_its_name(tmp_path: Path, wrong: Plain, named: str) -> None:
    assert named in refusal(tmp_path, LEAST, wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"storage": {"archives": ""}}, "storage.archives: where uploaded archives lie"),
        ({"kafka": {"auth": {"type": "tls"}}}, "kafka.auth.secret: names the Secret"),
        ({"kafka": {"topics": {"mode": "strimzi"}}}, "kafka.strimzi.cluster"),
        (
            {"kafka": {"topics": {"mode": "strimzi"}, "strimzi": {"cluster": "platform"}}},
            "it should be tls or scram-sha-512",
        ),
        ({"downloads": {"enabled": True}}, "storage.files: where files of handlers lie"),
        ({"downloads": {"enabled": True}, "storage": {"files": "s3://bucket/files"}}, "downloads.host"),
        ({"route": {"kind": "Ingress"}}, "route.host"),
        ({"autoscaling": {"kind": "keda"}}, "autoscaling.keda.prometheus"),
        ({"mail": {"smtp": {"user": "me"}}}, "mail.smtp.passwordSecret.name"),
    ],
)
def test_what_is_missing_for_a_switch_is_told(tmp_path: Path, wrong: Plain, told: str) -> None:
    assert told in refusal(tmp_path, LEAST, wrong)


def test_nothing_given_is_refused_with_all_that_is_required(tmp_path: Path) -> None:
    told = refusal(tmp_path)
    for path in (
        "/kafka/bootstrapServers",
        "/ledger/existingSecret",
        "/btrdb/endpoint",
        "/apiKeys/existingSecret",
        "/mail/from",
    ):
        assert path in told


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def names(plain: Plain, form: Plain, where: str) -> None:
        properties = form.get("properties")
        if properties is None or where.endswith((".stationSecrets", ".extraEgress")):
            return
        assert form["additionalProperties"] is False, where
        assert set(plain) == set(properties) - {"global"}, where
        for name, below in properties.items():
            if isinstance(plain.get(name), dict):
                names(plain[name], below, f"{where}.{name}")

    names(values, schema, "values")


def test_another_release_name_goes_before_all_names(tmp_path: Path) -> None:
    one = chart.render(tmp_path, LEAST, release="north")
    for plain in one.objects:
        assert plain["metadata"]["name"].startswith("north-eventproc"), plain["kind"]
