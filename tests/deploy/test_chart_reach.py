"""The chart's selectors, policies, routes, Kafka and monitoring, as real Helm renders them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from deploy.helm import topics as chart_topics
from schemas.acls import FILE as ACLS
from schemas.topics import DAY_MS
from tests.deploy import chart
from tests.deploy.chart import (
    LEAST,
    ROOT,
    STATIONS,
    STRIMZI,
    Plain,
    refusal,
    selects,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chart.helm() is None, reason="there is no Helm; `make tools` builds it"),
]


def test_every_selector_selects_pods_of_its_own_alone(one: chart.Rendered) -> None:
    pods = dict(one.pods())
    for name, deployment in one.of("Deployment").items():
        chosen = [other for other, pod in pods.items() if selects(deployment["spec"]["selector"], pod)]
        assert chosen == [name]
    for name, budget in one.of("PodDisruptionBudget").items():
        assert [other for other, pod in pods.items() if selects(budget["spec"]["selector"], pod)] == [name]
    for name, service in one.of("Service").items():
        chosen = [other for other, pod in pods.items() if selects({"matchLabels": service["spec"]["selector"]}, pod)]
        assert chosen == [name]
        ports = {port["name"] for port in pods[name]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_services_and_probes_point_at_ports_that_are_listened_at(one: chart.Rendered) -> None:
    listens = {
        "registry": ("REGISTRY_LISTEN", "REGISTRY_INTERNAL_LISTEN"),
        "ctingress": ("CTINGRESS_LISTEN",),
        "downloads": ("DOWNLOADS_LISTEN",),
    }
    for name in set(one.of("Deployment")) - {"eventproc-admin"}:
        container, env = one.container(name), one.env(name)
        told = {int(env[variable].rpartition(":")[2]) for variable in listens.get(container["name"], ())}
        assert {port["containerPort"] for port in container["ports"]} == told | {int(env["EVENTPROC_METRICS_PORT"])}
        probes = [container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert [probe["path"] for probe in probes] == ["/healthz", "/healthz", "/readyz"]
        assert {probe["port"] for probe in probes} == {"metrics"}
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 300, "a busy node takes minutes to start a station"


def test_nothing_is_reached_that_no_policy_allows(one: chart.Rendered) -> None:
    policies = one.of("NetworkPolicy")
    deny = policies["eventproc-default-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny and "egress" not in deny
    for name, pod in one.pods():
        if name.endswith("-seccomp"):
            continue
        assert selects(deny["podSelector"], pod)
        own = [p["spec"] for p in policies.values() if p["spec"] != deny and selects(p["spec"]["podSelector"], pod)]
        assert len(own) == 1, name
        ports = {port["port"] for rule in own[0].get("ingress", ()) for port in rule["ports"]}
        container = pod["spec"]["containers"][0]
        assert ports == {port["containerPort"] for port in container.get("ports", ())}, name


def test_only_executors_reach_the_port_that_gives_out_keys(one: chart.Rendered) -> None:
    (rule,) = [
        rule
        for rule in one.of("NetworkPolicy")["eventproc-registry"]["spec"]["ingress"]
        if rule["ports"][0]["port"] == 4413
    ]
    (peer,) = rule["from"]
    chosen = [name for name, pod in one.pods() if selects(peer["podSelector"], pod)]
    assert chosen and all("-executor-" in name for name in chosen)


def test_a_station_may_go_out_to_what_it_works_with_and_no_further(rendered: dict[str, chart.Rendered]) -> None:
    policies = rendered["least"].of("NetworkPolicy")
    out = {
        name.removeprefix("eventproc-"): {p["port"] for rule in policy["spec"].get("egress", ()) for p in rule["ports"]}
        for name, policy in policies.items()
    }
    dns, kafka, ledger, btrdb, smtp, storage = 53, 9092, 5432, 4411, 587, 443
    assert out == {
        "default-deny": set(),
        "registry": {dns, ledger},
        "dispatcher": {dns, ledger, kafka},
        "notifier": {dns, ledger, kafka, smtp, storage},
        "executor": {dns, kafka, btrdb, storage, 4413},
        "ctingress": {dns, ledger, kafka, btrdb, storage},
        "migrations": {dns, ledger},
        "topics": {dns, kafka},
        "admin": {dns, ledger, kafka},
    }


def test_tokens_and_schemas_come_from_the_ports_of_their_urls_and_from_peers_of_their_own(tmp_path: Path) -> None:
    def peer(name: str) -> list[Plain]:
        return [{"ipBlock": {"cidr": f"192.0.2.{name}/32"}}]

    named: Plain = {"networkPolicy": {"kafkaTo": peer("1"), "oauthTo": peer("2"), "schemaRegistryTo": peer("3")}}
    policies = chart.render(tmp_path, LEAST, chart.OAUTH, named).of("NetworkPolicy")

    for station in ("dispatcher", "executor", "notifier", "ctingress", "topics", "admin"):
        rules = policies[f"eventproc-{station}"]["spec"]["egress"]
        out = {port["port"]: rule.get("to") for rule in rules for port in rule["ports"]}
        assert (out[9092], out[8443], out[8081]) == (peer("1"), peer("2"), peer("3")), station
    assert {8443, 8081}.isdisjoint(
        port["port"] for rule in policies["eventproc-registry"]["spec"]["egress"] for port in rule["ports"]
    )


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://a.example.com/token", 443), ("http://a.example.com", 80), ("http://a.example.com:81/b", 81)],
)
def test_a_url_without_a_port_has_its_scheme_s(tmp_path: Path, url: str, port: int) -> None:
    one = chart.render(tmp_path, LEAST, {"kafka": {"schemaRegistryUrl": url}})
    rules = one.of("NetworkPolicy")["eventproc-dispatcher"]["spec"]["egress"]
    assert port in {one["port"] for rule in rules for one in rule["ports"]}


def test_the_jobs_policies_come_before_them_for_an_upgrade_runs_them_under_the_release_before(
    one: chart.Rendered,
) -> None:
    policies = one.of("NetworkPolicy")
    for name, job in one.of("Job").items():
        about = policies[name]["metadata"]["annotations"]
        assert about["helm.sh/hook"] == job["metadata"]["annotations"]["helm.sh/hook"]
        assert int(about["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
        assert "hook-succeeded" in about["helm.sh/hook-delete-policy"], "or an uninstall would leave it"
    stay = {name: policy["metadata"].get("annotations") for name, policy in policies.items()}
    assert not any(about for name, about in stay.items() if name not in one.of("Job"))


def test_peers_that_are_named_are_the_only_ones(tmp_path: Path) -> None:
    ingress = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
    one = chart.render(tmp_path, LEAST, {"networkPolicy": {"usersFrom": ingress, "kafkaTo": ingress}})
    policies = one.of("NetworkPolicy")
    rules = {r["ports"][0]["port"]: r.get("from") for r in policies["eventproc-ctingress"]["spec"]["ingress"]}
    assert rules[4415] == ingress
    out = {r["ports"][0]["port"]: r.get("to") for r in policies["eventproc-dispatcher"]["spec"]["egress"]}
    assert out[9092] == ingress
    assert out[5432] is None


def test_the_users_api_is_routed_beside_btrdb(tmp_path: Path) -> None:
    ingress = chart.render(tmp_path, LEAST, {"route": {"kind": "Ingress", "host": "btrdb.example.com"}}).of("Ingress")
    (path,) = ingress["eventproc-api"]["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == "/eventprocapi.EventProcessingService/"
    assert path["backend"] == {"service": {"name": "eventproc-registry", "port": {"name": "grpc"}}}
    assert (
        ingress["eventproc-api"]["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPCS"
    )

    route: Plain = {"kind": "GRPCRoute", "host": "btrdb.example.com", "gateway": {"parentRefs": [{"name": "platform"}]}}
    plain: Plain = {"route": route, "registry": {"publicTls": False}}
    one = chart.render(tmp_path, LEAST, plain)
    rule = one.of("GRPCRoute")["eventproc-api"]["spec"]["rules"][0]
    assert rule["matches"] == [{"method": {"type": "Exact", "service": "eventprocapi.EventProcessingService"}}]
    assert rule["backendRefs"] == [{"name": "eventproc-registry", "port": 4412}]
    assert one.env("eventproc-registry")["REGISTRY_PUBLIC_TLS"] == "false"
    assert "BackendTLSPolicy" in refusal(tmp_path, LEAST, {"route": route})


def test_strimzi_makes_every_topic_and_users_with_the_rights_that_are_listed(
    rendered: dict[str, chart.Rendered],
) -> None:
    one = rendered["strimzi and much"]
    names = {topic["spec"]["topicName"] for topic in one.of("KafkaTopic").values()}
    assert names == {
        "ctingress.on_complete", "eventproc.tasks.py3.11", "eventproc.tasks.py3.7", "eventproc.results",
        "eventproc.dead-letters", "eventproc.schemas",
    }  # fmt: skip
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) for name in one.of("KafkaTopic"))
    users = one.of("KafkaUser")
    listed = json.loads(ACLS.read_text())
    assert {name: user["spec"]["authorization"]["acls"] for name, user in users.items()} == {
        f"eventproc-{station}": listed[station]
        for station in ("ctingress", "dispatcher", "executor", "notifier", "admin")
    }
    kinds = {one["apiVersion"] for one in (*users.values(), *one.of("KafkaTopic").values())}
    assert kinds == {"kafka.strimzi.io/v1"}
    assert "eventproc-topics" not in one.of("Job")


def test_an_older_strimzi_gets_its_own_version(tmp_path: Path) -> None:
    older: Plain = {"kafka": {"strimzi": {"apiVersion": "kafka.strimzi.io/v1beta2"}}}
    one = chart.render(tmp_path, LEAST, STRIMZI, older)
    assert {user["apiVersion"] for user in one.of("KafkaUser").values()} == {"kafka.strimzi.io/v1beta2"}


def test_stations_read_strimzis_secrets_as_they_are(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["strimzi"]
    for station in ("dispatcher", "notifier", "ctingress", "executor-py3-11"):
        name = f"eventproc-{station}"
        volumes = one.of("Deployment")[name]["spec"]["template"]["spec"]["volumes"]
        secrets = {volume["name"]: volume["secret"] for volume in volumes if "secret" in volume}
        assert secrets["kafka"]["secretName"] == f"eventproc-{station.partition('-')[0]}"
        assert secrets["kafka-ca"]["secretName"] == "platform-cluster-ca-cert"
        env = one.env(name)
        assert env["EVENTPROC_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
        assert env["EVENTPROC_KAFKA_SASL_MECHANISM"] == "SCRAM-SHA-512"
        assert env["EVENTPROC_KAFKA_SASL_JAAS_CONFIG_FILE"] == "/etc/eventproc/kafka/sasl.jaas.config"
        assert env["EVENTPROC_KAFKA_SSL_CAFILE"] == "/etc/eventproc/kafka-ca/ca.crt"


def test_each_way_into_kafka_has_its_protocol(rendered: dict[str, chart.Rendered]) -> None:
    found = {
        sort: rendered[sort].env("eventproc-dispatcher")["EVENTPROC_KAFKA_SECURITY_PROTOCOL"]
        for sort in ("least", "mutual TLS", "oauth and hpa", "strimzi")
    }
    assert found == {"least": "PLAINTEXT", "mutual TLS": "SSL", "oauth and hpa": "SASL_SSL", "strimzi": "SASL_SSL"}


def test_topics_are_made_by_a_job_before_the_stations_come(rendered: dict[str, chart.Rendered]) -> None:
    jobs = rendered["least"].of("Job")
    hooks = {name: job["metadata"]["annotations"] for name, job in jobs.items()}
    assert set(jobs) == {"eventproc-migrations", "eventproc-topics"}
    assert {annotations["helm.sh/hook"] for annotations in hooks.values()} == {"pre-install,pre-upgrade"}
    for name, asked in (("eventproc-migrations", "migrate"), ("eventproc-topics", "topics")):
        spec = jobs[name]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        *_, command, option, seconds = container["command"]
        assert (command, option) == (asked, "--wait")
        assert int(seconds) < spec["activeDeadlineSeconds"], "its own last words, not Kubernetes' end"
        assert spec["template"]["spec"]["restartPolicy"] == "Never", "or the pod goes, and what it said"


def test_dead_letters_are_kept_for_as_long_as_the_settings_say_whoever_makes_the_topics(
    rendered: dict[str, chart.Rendered], tmp_path: Path
) -> None:
    (job,) = [job for name, job in rendered["much"].of("Job").items() if name.endswith("-topics")]
    env = {one["name"]: one.get("value") for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["EVENTPROC_KEEP_DEAD_LETTERS_DAYS"] == "10"

    def kept(one: chart.Rendered) -> object:
        return one.of("KafkaTopic")["eventproc.dead-letters"]["spec"]["config"]["retention.ms"]

    assert kept(rendered["strimzi and much"]) == 10 * DAY_MS
    assert kept(rendered["strimzi"]) == 400 * DAY_MS
    for_ever: Plain = {"settings": {"EVENTPROC_KEEP_DEAD_LETTERS_DAYS": 0}}
    assert kept(chart.render(tmp_path, LEAST, STRIMZI, for_ever)) == -1


def test_the_migrations_job_gives_the_stations_roles_their_rights_when_it_is_asked_to(
    rendered: dict[str, chart.Rendered],
) -> None:
    def given(sort: str) -> list[str]:
        job = rendered[sort].of("Job")["eventproc-migrations"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        return [one["value"] for one in container["env"] if one["name"] == "ADMIN_LEDGER_ROLES"]

    assert (given("least"), given("much")) == ([], ["eventproc_{station}"])


def test_the_charts_topics_are_those_of_the_schemas() -> None:
    assert chart_topics.FILE.read_text() == chart_topics.text(), "run `make docs`"


def test_rules_and_dashboard_are_the_projects_own_files(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["much"]
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
    assert one.of("PrometheusRule")["eventproc"]["spec"] == rules
    board = json.loads((ROOT / "deploy" / "grafana" / "eventproc.json").read_text())
    assert json.loads(one.of("ConfigMap")["eventproc-dashboard"]["data"]["eventproc.json"]) == board


def test_prometheus_scrapes_every_station(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["much"]
    (monitor,) = one.of("PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    scraped = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for _, pod in one.pods()
        if selects(monitor["spec"]["selector"], pod)
        and any(port["name"] == endpoint["port"] for port in pod["spec"]["containers"][0].get("ports", ()))
    }
    assert scraped == set(STATIONS)


def test_executors_scale_by_waiting_and_lag(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["much"]
    scaled = one.of("ScaledObject")["eventproc-executor-py3-11"]["spec"]
    queries = [trigger["metadata"]["query"] for trigger in scaled["triggers"]]
    ours = 'namespace="events",app_kubernetes_io_instance="eventproc"'
    assert queries == [
        f'max(eventproc_oldest_queued_seconds{{runtime="py3.11",{ours}}}) or vector(0)',
        f'sum(eventproc_consumer_lag{{topic="eventproc.tasks.py3.11",{ours}}}) or vector(0)',
    ]
    (monitor,) = one.of("PodMonitor").values()
    assert "app.kubernetes.io/instance" in monitor["spec"]["podTargetLabels"], "the label that the queries go by"
    assert scaled["scaleTargetRef"]["name"] in one.of("Deployment")
    assert "replicas" not in one.of("Deployment")["eventproc-executor-py3-11"]["spec"]
    assert not one.of("HorizontalPodAutoscaler")


def test_without_keda_stations_scale_by_processor_use(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["oauth and hpa"]
    scalers = one.of("HorizontalPodAutoscaler")
    assert {scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers.values()} == set(scalers)
    assert set(scalers) == set(one.of("Deployment")) - {"eventproc-dispatcher", "eventproc-admin"}
    for name in scalers:
        deployment = one.of("Deployment")[name]["spec"]
        assert "replicas" not in deployment
        assert deployment["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]


def test_the_alerts_lead_to_the_runbook_where_the_operator_has_it(tmp_path: Path) -> None:
    base = "https://git.example.com/eventproc/blob/main"
    wanted: Plain = {"monitoring": {"rules": {"enabled": True, "runbookBase": base}}}
    rules = chart.render(tmp_path, LEAST, wanted).of("PrometheusRule")["eventproc"]["spec"]["groups"]
    urls = [rule["annotations"]["runbook_url"] for group in rules for rule in group["rules"] if "alert" in rule]
    assert urls and all(url.startswith(f"{base}/docs/runbook.md#") for url in urls)


def test_every_container_asks_for_what_it_needs(one: chart.Rendered) -> None:
    for name, pod in one.pods():
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
