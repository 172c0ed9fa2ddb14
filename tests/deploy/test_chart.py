"""The chart's pods, as real Helm renders them: what they may do, what they are told."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic_settings import BaseSettings

from admin.__main__ import app as eventproc_admin
from notifier.settings import NotifierSettings
from tests.deploy import chart
from tests.deploy.chart import (
    CHART,
    LEAST,
    ROOT,
    STATIONS,
    Plain,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chart.helm() is None, reason="there is no Helm; `make tools` builds it"),
]


def test_every_container_is_restricted(one: chart.Rendered) -> None:
    for name, pod in one.pods():
        if name.endswith("-seccomp"):
            continue  # it writes into a folder of the node's; the next test holds it
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 1000
        assert spec["securityContext"]["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["readOnlyRootFilesystem"] is True, name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name
            assert set(rights) <= {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities", "procMount"}
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert not any("hostPath" in volume for volume in spec["volumes"]), name


def test_only_an_executor_at_level_full_leaves_the_restricted_standard(rendered: dict[str, chart.Rendered]) -> None:
    for sort, one in rendered.items():
        for name, pod in one.pods():
            mounts = {c["securityContext"].get("procMount") for c in pod["spec"]["containers"]}
            wanted = {"Unmasked"} if sort == "full sandbox" and "-executor-" in name else {None}
            assert mounts == wanted, (sort, name)


def test_the_seccomp_installer_has_no_capability_and_mounts_one_folder(rendered: dict[str, chart.Rendered]) -> None:
    (daemon,) = rendered["much"].of("DaemonSet").values()
    spec = daemon["spec"]["template"]["spec"]
    assert daemon["metadata"]["namespace"] == "kube-system"
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v] == ["/var/lib/kubelet/seccomp"]


@pytest.mark.parametrize(
    ("sandbox", "profile", "host_users"),
    [
        ({"level": "pod"}, {"type": "RuntimeDefault"}, None),
        ({"level": "namespaces"}, {"type": "Localhost", "localhostProfile": "eventproc/executor.json"}, None),
        ({"level": "pod", "hostUsers": False}, {"type": "RuntimeDefault"}, False),
        ({"level": "full"}, {"type": "Localhost", "localhostProfile": "eventproc/executor.json"}, False),
    ],
)
def test_the_sandbox_level_decides_what_the_executors_pod_is(
    tmp_path: Path, sandbox: Plain, profile: Plain, host_users: bool | None
) -> None:
    one = chart.render(tmp_path, LEAST, {"executor": {"sandbox": sandbox}})

    spec = one.of("Deployment")["eventproc-executor-py3-11"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["seccompProfile"] == profile
    assert spec.get("hostUsers") == host_users
    assert one.env("eventproc-executor-py3-11")["EXECUTOR_SANDBOX_LEVEL"] == sandbox["level"]


def test_the_seccomp_profile_lets_namespaces_be_made_and_refuses_what_nobody_needs() -> None:
    profile = json.loads((CHART / "files" / "seccomp.json").read_text())
    refused = {name for rule in profile["syscalls"] for name in rule["names"]}
    assert not refused & {"unshare", "clone", "clone3", "mount", "umount2", "mount_setattr", "pivot_root", "setns"}
    assert not refused & {"seccomp", "prctl"}
    assert {"bpf", "keyctl", "ptrace", "userfaultfd", "io_uring_setup", "kexec_load", "init_module"} <= refused


def test_no_pod_gets_a_token_of_the_cluster(one: chart.Rendered) -> None:
    for name, pod in one.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
    accounts = one.of("ServiceAccount")
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    used = {pod["spec"]["serviceAccountName"] for _, pod in one.pods() if "serviceAccountName" in pod["spec"]}
    assert used == set(accounts)


def known_variables() -> set[str]:
    """Every variable that a settings class or an option of ours reads."""
    modules = [
        path
        for station in (*STATIONS, "stream", "ledger", "telemetry", "admin")
        for path in (ROOT / station).glob("*.py")
    ]
    for path in modules:
        if "BaseSettings" in path.read_text() or "Settings)" in path.read_text():
            importlib.import_module(f"{path.parent.name}.{path.stem}")
    found = {"EVENTPROC_LOG_LEVEL", "OTEL_EXPORTER_OTLP_ENDPOINT"}  # read by telemetry/logs.py, by OpenTelemetry's SDK
    commands: dict[str, Any] = typer.main.get_command(eventproc_admin).commands  # type: ignore[attr-defined]
    found |= {str(option.envvar) for command in commands.values() for option in command.params if option.envvar}
    kinds: list[Any] = [BaseSettings]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        prefix = kind.model_config.get("env_prefix", "")
        for name, field in kind.model_fields.items():
            alias = field.validation_alias
            found.add(alias if isinstance(alias, str) else f"{prefix}{name}".upper())
    return found


def test_every_variable_is_a_setting_of_its_station(one: chart.Rendered) -> None:
    known = known_variables()
    for name, pod in one.pods():
        for container in pod["spec"]["containers"]:
            names = [variable["name"] for variable in container.get("env", ())]
            assert set(names) <= known, name
            assert len(names) == len(set(names)), name


def test_every_file_that_a_variable_names_is_mounted(one: chart.Rendered) -> None:
    for name, pod in one.pods():
        for container in pod["spec"]["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}, name
            for variable in container.get("env", ()):
                value = variable.get("value", "")
                if value.startswith("/etc/eventproc/"):
                    assert str(Path(value).parent) in mounts.values(), (name, value)


def test_secrets_are_mounted_as_folders_so_that_they_can_rotate(one: chart.Rendered) -> None:
    for name, pod in one.pods():
        secrets = {volume["name"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        for container in pod["spec"]["containers"]:
            mounts = [mount for mount in container["volumeMounts"] if mount["name"] in secrets]
            assert not any("subPath" in mount for mount in mounts), name


def test_packages_lie_in_a_folder_that_the_executor_makes_for_a_mount_belongs_to_root(one: chart.Rendered) -> None:
    for name, pod in one.pods():
        if "-executor-" in name:
            mounts = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
            folder = Path(one.env(name)["EXECUTOR_PACKAGES_DIR"])
            assert str(folder) not in mounts
            assert str(folder.parent) in mounts


def test_the_executor_knows_no_ledger_and_no_seal_key(one: chart.Rendered) -> None:
    pods = [pod for name, pod in one.pods() if "-executor-" in name]
    assert pods
    for pod in pods:
        text = json.dumps(pod)
        assert "EVENTPROC_LEDGER_URL" not in text
        assert "EVENTPROC_SEAL" not in text
        assert "api-keys" not in text


def test_an_executors_limits_hold_its_slots_and_its_grace_holds_its_runs(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["much"]
    deployment = one.of("Deployment")["eventproc-executor-py3-11"]["spec"]["template"]["spec"]
    env = one.env("eventproc-executor-py3-11")
    limit = int(deployment["containers"][0]["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    wanted = int(env["EXECUTOR_SLOTS"]) * int(env["EXECUTOR_MEMORY_BYTES"]) + int(env["EXECUTOR_RESERVE_BYTES"])
    assert env["EXECUTOR_SLOTS"] == "4"
    assert limit >= wanted
    assert deployment["terminationGracePeriodSeconds"] > float(env["EXECUTOR_GRACE_S"])


def test_the_runtimes_that_the_registry_serves_are_those_of_the_executors(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["much"]
    assert one.env("eventproc-registry")["REGISTRY_RUNTIMES"] == "py3.11,py3.7"
    assert one.env("eventproc-dispatcher")["REGISTRY_RUNTIMES"] == "py3.11,py3.7"
    images = {
        name: one.of("Deployment")[name]["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("eventproc-executor-py3-11", "eventproc-executor-py3-7")
    }
    version = re.search(r'^appVersion: "(.*)"$', (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    assert version is not None
    assert images == {
        "eventproc-executor-py3-11": f"eventproc-executor:{version[1]}-py3.11",
        "eventproc-executor-py3-7": f"eventproc-executor:{version[1]}-py3.7",
    }


def test_an_executor_sees_of_the_claim_the_files_alone_and_has_a_login_of_its_own(tmp_path: Path) -> None:
    claim: Plain = {
        "storage": {
            "claim": "storage", "archives": "file:///var/lib/eventproc/archives",
            "files": "file:///var/lib/eventproc/kept/files/", "envSecret": "all", "filesEnvSecret": "files-alone",
        },
    }  # fmt: skip
    one = chart.render(tmp_path, LEAST, claim)

    def storage(name: str) -> list[Plain]:
        return [mount for mount in one.container(name)["volumeMounts"] if mount["name"] == "storage"]

    executor = "eventproc-executor-py3-11"
    assert storage(executor) == [
        {"name": "storage", "mountPath": "/var/lib/eventproc/kept/files", "subPath": "kept/files"}
    ]
    (made,) = one.of("Deployment")[executor]["spec"]["template"]["spec"]["initContainers"]
    assert made["command"] == ["mkdir", "-p", "/var/lib/eventproc/kept/files"]
    assert storage("eventproc-notifier") == [{"name": "storage", "mountPath": "/var/lib/eventproc"}]
    logins = {
        name: one.container(name)["envFrom"][0]["secretRef"]["name"] for name in (executor, "eventproc-ctingress")
    }
    assert logins == {executor: "files-alone", "eventproc-ctingress": "all"}


def test_stations_that_are_called_answer_for_a_moment_more_and_all_have_time_to_end(one: chart.Rendered) -> None:
    notifier = NotifierSettings(ledger_url="sqlite://", smtp_host="smtp", sender="eventproc@example.com")
    for name in set(one.of("Deployment")) - {"eventproc-admin"}:
        container = one.container(name)
        grace_s = one.of("Deployment")[name]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        called = container["name"] in ("registry", "ctingress", "downloads")
        assert ("lifecycle" in container) is called, name
        assert container["livenessProbe"]["terminationGracePeriodSeconds"] <= 30, "what hangs does not use its grace"
        if container["name"] == "notifier":
            assert grace_s > notifier.mail_s
        assert grace_s >= 30


def test_no_member_of_a_group_keeps_a_name_that_its_pod_does_not_keep(one: chart.Rendered) -> None:
    for name in one.of("Deployment"):
        variables = {variable["name"] for variable in one.container(name)["env"]}
        assert not {variable for variable in variables if variable.endswith("_INSTANCE")}, name


def test_operators_have_a_place_for_their_commands_with_rights_of_its_own(tmp_path: Path) -> None:
    own: Plain = {
        "ledger": {"stationSecrets": {"admin": "ledger-admin"}},
        "kafka": {"tls": True, "auth": {"type": "scram-sha-512", "secret": "all", "stationSecrets": {"admin": "kafka-admin"}}},
        "jobs": {"nodeSelector": {"pool": "small"}},
    }  # fmt: skip
    one = chart.render(tmp_path, LEAST, own)
    spec = one.of("Deployment")["eventproc-admin"]["spec"]
    assert spec["replicas"] == 0
    env = {variable["name"]: variable for variable in one.container("eventproc-admin")["env"]}
    assert env["EVENTPROC_LEDGER_URL"]["valueFrom"]["secretKeyRef"]["name"] == "ledger-admin"
    assert env["EVENTPROC_SEAL_KEYS_FILE"]["value"] == "/etc/eventproc/seal/seal-keys"
    secrets = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in spec["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    assert secrets == {"seal": "eventproc-seal", "kafka": "kafka-admin"}
    assert spec["template"]["spec"]["nodeSelector"] == {"pool": "small"}
    assert "eventproc-admin" not in chart.render(tmp_path, LEAST, {"admin": {"enabled": False}}).of("Deployment")


def test_what_runs_beside_the_stations_goes_where_it_is_told_to(rendered: dict[str, chart.Rendered]) -> None:
    one = rendered["much"]
    beside = {
        name: pod["spec"] for name, pod in one.pods() if name.endswith(("-migrations", "-topics", "-test", "-admin"))
    }
    assert len(beside) == 4
    for name, spec in beside.items():
        assert spec["nodeSelector"] == {"pool": "small"}, name
        assert spec["tolerations"] == [{"key": "small", "operator": "Exists"}], name


def test_the_schema_registry_s_login_is_a_reference(rendered: dict[str, chart.Rendered]) -> None:
    container = rendered["oauth and hpa"].container("eventproc-dispatcher")
    env = {variable["name"]: variable for variable in container["env"]}
    user = env["EVENTPROC_SCHEMA_REGISTRY_USER"]["valueFrom"]["secretKeyRef"]
    password = env["EVENTPROC_SCHEMA_REGISTRY_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert (user, password) == ({"name": "schemas", "key": "username"}, {"name": "schemas", "key": "password"})
    assert env["EVENTPROC_SCHEMA_REGISTRY_CA"]["value"] == "/etc/eventproc/schemas-ca/ca.crt"
