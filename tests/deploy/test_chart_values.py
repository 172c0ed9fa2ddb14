"""Mistakes in the chart's values are refused by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ledger.settings import KeepSettings, LeaseSettings
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
        ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "maxUnavailable"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
        ({"settings": {"lease": 3}}, "lease"),
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
        ({"storage": {"files": "file:///var/lib/eventproc/files"}}, "storage.claim: is empty"),
        ({"storage": {"archives": "file:///var/lib/eventproc/archives"}}, "storage.archives, file:///var/lib"),
        ({"storage": {"files": "file:///srv/files", "claim": "storage"}}, "storage.files: is file:///srv/files"),
        ({"kafka": {"auth": {"type": "scram-sha-512", "secret": "user"}}}, "kafka.tls: is false"),
        ({"kafka": {"auth": {"type": "oauthbearer", "secret": "user"}}}, "kafka.tls: is false"),
        ({"executor": {"runtimes": {"py3.11": None}}}, "/executor/runtimes"),
        ({"dispatcher": {"env": {"EVENTPROC_LEASE_S": 30}}}, "as settings.EVENTPROC_LEASE_S"),
        ({"executor": {"env": {"EVENTPROC_KEEP_RUNS_DAYS": 30}}}, "executor.env.EVENTPROC_KEEP_RUNS_DAYS: several"),
        ({"settings": {"EVENTPROC_MAX_MESSAGE_BYTES": 1}}, "settings.EVENTPROC_MAX_MESSAGE_BYTES: is set by the chart"),
        ({"executor": {"env": {"EXECUTOR_SLOTS": 3}}}, "executor.env.EXECUTOR_SLOTS: is set by the chart"),
        (
            {"registry": {"env": {"EVENTPROC_LEDGER_URL": "x"}}},
            "registry.env.EVENTPROC_LEDGER_URL: is set by the chart",
        ),
        ({"notifier": {"env": {"EVENTPROC_METRICS_PORT": 1}}}, "notifier.env.EVENTPROC_METRICS_PORT: is set by"),
        ({"admin": {"env": {"DISPATCHER_GROUP": "mine"}}}, "admin.env.DISPATCHER_GROUP: several"),
        ({"downloads": {"enabled": True}}, "storage.files: where files of handlers lie"),
        ({"downloads": {"enabled": True}, "storage": {"files": "s3://bucket/files"}}, "downloads.host"),
        ({"route": {"kind": "Ingress"}}, "route.host"),
        ({"autoscaling": {"kind": "keda"}}, "autoscaling.keda.prometheus"),
        ({"mail": {"smtp": {"user": "me"}}}, "mail.smtp.passwordSecret.name"),
    ],
)
def test_what_is_missing_for_a_switch_is_told(tmp_path: Path, wrong: Plain, told: str) -> None:
    assert told in refusal(tmp_path, LEAST, wrong)


def test_what_stations_must_have_the_same_is_what_several_of_them_read() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    listed = json.loads(helpers.partition('{{- define "eventproc.agreed" -}}')[2].partition("{{-")[0])
    shared = {f"EVENTPROC_{name.upper()}" for name in LeaseSettings.model_fields}
    assert set(listed) == shared | {"DISPATCHER_GROUP"}, "those of KeepSettings are known by EVENTPROC_KEEP_"
    assert KeepSettings.model_config["env_prefix"] == "EVENTPROC_KEEP_"


def test_settings_reach_all_that_run_and_a_station_s_own_go_above_them(tmp_path: Path) -> None:
    given: Plain = {
        "settings": {
            "EVENTPROC_LEASE_S": 300,
            "SWEEPER_UNSERVED_AFTER_S": 10_000_000,
            "NOTIFIER_BATCH": 5,
            "SWEEPER_EVERY_S": 0.5,
        },
        "notifier": {"env": {"NOTIFIER_BATCH": 0}},
    }
    for name, pod in chart.render(tmp_path, LEAST, given).pods():
        env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert (env["EVENTPROC_LEASE_S"], env["SWEEPER_EVERY_S"], env["SWEEPER_UNSERVED_AFTER_S"]) == (
            "300",
            "0.5",
            "10000000",
        ), name
        assert env["NOTIFIER_BATCH"] == ("0" if name.endswith("-notifier") else "5")


def test_one_station_may_tell_more_than_the_others(tmp_path: Path) -> None:
    one = chart.render(tmp_path, LEAST, {"notifier": {"env": {"EVENTPROC_LOG_LEVEL": "DEBUG"}}})
    told = {name: one.env(f"eventproc-{name}")["EVENTPROC_LOG_LEVEL"] for name in ("notifier", "registry")}
    assert told == {"notifier": "DEBUG", "registry": "INFO"}


def test_scram_in_the_clear_is_had_by_saying_so(tmp_path: Path) -> None:
    auth = {"type": "scram-sha-512", "secret": "user", "plaintext": True}
    one = chart.render(tmp_path, LEAST, {"kafka": {"auth": auth}})
    assert one.env("eventproc-dispatcher")["EVENTPROC_KAFKA_SECURITY_PROTOCOL"] == "SASL_PLAINTEXT"


def test_a_runtime_that_is_set_to_null_is_none(tmp_path: Path) -> None:
    one = chart.render(tmp_path, LEAST, {"executor": {"runtimes": {"py3.11": None, "py3.12": {}, "py3.7": None}}})
    assert [name for name in one.of("Deployment") if "-executor-" in name] == ["eventproc-executor-py3-12"]
    assert one.env("eventproc-registry")["REGISTRY_RUNTIMES"] == "py3.12"


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
