"""The compose file, really brought up: the whole road through containers, each of them held as tightly as it claims."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from btrdbextras import Connection
from btrdbextras.errors import NoServer
from btrdbextras.eventproc import list_handlers, register
from examples import handlers
from examples.make_comtrade import fault_archive
from tests.deploy import composed
from tests.deploy.composed import BUILD_S, STATIONS, USER, Composed, docker, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_S + 300)]

HOOK = "ctingress.on_complete"
LOOK_AROUND = """
import json, os, shutil, urllib.request
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
def written(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
    os.remove(path)
    return "written"
print(json.dumps({
    "users": status["Uid"].split() + status["Gid"].split(),
    "held": {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")},
    "files": {path: written(path) for path in ("/probe", "/opt/eventproc/probe", "/usr/local/bin/probe", "/tmp/probe")},
    "compilers": [name for name in ("cc", "gcc", "c++", "clang", "tcc", "ld", "as", "make", "go", "rustc") if shutil.which(name)],
    "metrics": urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode(),
}))
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    if lacking := composed.lacking():
        pytest.skip(lacking)
    composed.build()
    made = Composed(tmp_path_factory.mktemp("composed"))
    with pytest.MonkeyPatch.context() as env:
        env.setenv("BTRDB_CA_BUNDLE", str(made.ca))
        try:
            made.up()
            yield made
        finally:
            made.down()


def ask_for(stack: Composed, name: str, tag: str) -> str:
    """Registers the fault report; what the client says of it."""
    connection = Connection(f"{stack.address}:4411", stack.keys["alice"])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        register(connection, name, HOOK, f"{name}@example.com", f"{name}@example.com", tags=[tag])(
            handlers.fault_report
        )
    return said.getvalue()


def send(stack: Composed, folder: Path, tag: str) -> None:
    fault_archive(folder / "fault.zip")
    with stack.http("alice") as http:
        body = (folder / "fault.zip").read_bytes()
        answer = http.post("/v1/archives", params={"tags": tag, "name": "fault.zip"}, content=body)
        assert answer.status_code == 202, answer.text


def mail(stack: Composed, name: str) -> str:
    """The email to it, as the mail server printed it."""

    def arrived() -> str | None:
        found = [one for one in stack.logs("mail").split("-" * 78) if f"To: {name}@example.com" in one]
        return found[0] if found else None

    return wait_for(arrived, lambda: f"an email to {name}; " + "\n".join(stack.logs(one)[-1000:] for one in STATIONS))


def test_an_archive_goes_through_containers_to_its_email(stack: Composed, tmp_path: Path) -> None:
    said = ask_for(stack, "fault", "north")
    send(stack, tmp_path, "north")

    assert "loads in py3.11" in said
    text = mail(stack, "fault")
    assert "fault succeeded on fault.zip" in text
    assert "fault on IA" in text


@pytest.mark.parametrize("station", STATIONS)
def test_a_station_is_nobody_has_no_privilege_and_writes_to_no_file_of_the_image(stack: Composed, station: str) -> None:
    found = json.loads(stack.python(station, LOOK_AROUND))

    assert set(found["users"]) == {str(USER)}
    nothing = "0" * 16
    assert found["held"] == {
        "CapEff": nothing, "CapPrm": nothing, "CapBnd": nothing, "NoNewPrivs": "1", "Seccomp": "2"
    }  # fmt: skip
    assert found["files"].pop("/tmp/probe") == "written"
    assert set(found["files"].values()) == {"Read-only file system"}
    assert found["compilers"] == []
    limits = stack.inspect(station)["HostConfig"]
    assert limits["Memory"] > 0 and limits["PidsLimit"] > 0
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"


def test_handlers_run_in_namespaces_of_their_own(stack: Composed) -> None:
    metrics = json.loads(stack.python("executor", LOOK_AROUND))["metrics"]

    assert 'eventproc_sandbox_level{level="namespaces",runtime="py3.11"} 1.0' in metrics
    for layer in ("namespaces", "root", "network", "landlock", "seccomp"):
        assert f'eventproc_sandbox_layer{{layer="{layer}"}} 1.0' in metrics


def test_the_operators_commands_have_ledger_and_kafka_at_hand_and_the_ledger_can_be_dumped(stack: Composed) -> None:
    assert "reconcile" in stack.compose("exec", "-T", "dispatcher", "eventproc-admin", "--help")
    assert stack.compose("exec", "-T", "dispatcher", "eventproc-admin", "reconcile", "--json")
    dump = "PGPASSWORD=$POSTGRES_PASSWORD pg_dump --no-owner -h 127.0.0.1 -U eventproc eventproc"
    assert "CREATE TABLE public.handler_version" in stack.compose("exec", "-T", "postgresql", "sh", "-c", dump)


def test_a_station_that_is_killed_is_started_again(stack: Composed) -> None:
    before = stack.state("dispatcher")
    os.kill(before["Pid"], signal.SIGKILL)

    wait_for(lambda: stack.inspect("dispatcher")["RestartCount"] == 1, lambda: "the dispatcher to be started again")
    stack.healthy("dispatcher")


def test_sigterm_ends_each_with_0_and_what_it_kept_is_there_when_it_is_started_again(stack: Composed) -> None:
    ask_for(stack, "again", "south")

    for station in STATIONS:
        docker("stop", stack.container(station))  # within the grace of the file, or else killed: 137

    assert {station: stack.state(station)["ExitCode"] for station in STATIONS} == dict.fromkeys(STATIONS, 0)
    stack.up()
    connection = Connection(f"{stack.address}:4411", stack.keys["alice"])

    def kept() -> set[str]:
        with contextlib.suppress(
            NoServer
        ):  # the gateway may look for the registry at its old address for half a minute
            return {handler.name for handler in list_handlers(connection)}
        return set()

    assert "again" in wait_for(kept, lambda: f"the registry to answer: {stack.logs('btrdb')[-1000:]}")
