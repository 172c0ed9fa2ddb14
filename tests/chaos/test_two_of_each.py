"""Two registries, dispatchers, executors, notifiers and ingresses: none assumes that it is alone, and one of each is enough."""

from __future__ import annotations

import datetime
import email
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from sqlalchemy import select

from btrdbextras import Connection
from btrdbextras.eventproc import register
from devstack.layout import RUNTIME
from devstack.stack import ROOT
from examples.make_comtrade import fault_archive
from ledger import Ledger
from ledger.handlers import list_handlers
from ledger.tables import RunRow
from schemas.errors import TryLater
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import EventProcessingServiceStub
from schemas.records import Outcome
from stream.connect import open_broker
from stream.settings import StreamSettings
from tests.chaos.__main__ import register_all
from tests.chaos.handlers import ALL, quick
from tests.chaos.havoc import Deed
from tests.chaos.reckon import expected_runs, reckon, said, unsettled
from tests.chaos.stage import SHARED, Stage
from tests.registry_server import HOOK, bearer, pickled

TWO = {"registry": 2, "dispatcher": 2, "notifier": 2, "executor": 2, "ctingress": 2}
ARCHIVES = 24
PATIENCE_S = 180.0
DID = {
    "dispatcher": "dispatched",
    "executor": "begun",
    "notifier": "closed",
    "ctingress": "archive published",
}
"""What each station says of its work."""


class Pairs:
    """A stage with two of each; archives go to both ingresses in turn."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.ledger = Ledger.open(stage.ledger_url)
        self.broker = open_broker(StreamSettings(bootstrap_servers=stage.bootstrap, request_timeout_ms=4000))
        self.admin = self.broker.admin()
        self.archive = folder / "fault.zip"
        fault_archive(self.archive)
        self.events: dict[str, tuple[str, ...]] = {}
        until(stage.all_ready, "every station to be ready")
        layout = stage.layout
        self.handlers = register_all(layout.at("btrdb"), layout.certificates.ca, layout.api_keys, self.ledger)

    def close(self) -> None:
        self.broker.close()
        self.ledger.close()

    def upload(self, number: int, key: str) -> tuple[int, str]:
        """The answer's code and RequestID of the archive under that Idempotency-Key, from ingress 0 or 1."""
        layout = self.stage.layout
        with httpx.Client(
            base_url=f"https://{self.stage.at_higher('ingress', number)}",
            headers={"Authorization": f"Bearer {layout.api_keys['alice']}", "Idempotency-Key": key},
            verify=ssl.create_default_context(cafile=str(layout.certificates.ca)),
            timeout=60.0,
        ) as http:
            answer = http.post(
                "/v1/archives", params={"tags": "every", "name": f"{key}.zip"}, content=self.archive.read_bytes()
            )
        assert answer.status_code in (200, 202), answer.text
        return answer.status_code, str(answer.json()["RequestID"])

    def all_settled(self, deeds: list[Deed]) -> None:
        """Waits until all that was uploaded has come to its emails; everything adds up then."""
        expected = expected_runs(self.events, self.handlers)
        until(lambda: not self._rest(len(expected)), lambda: self._rest(len(expected)))
        books = reckon(self.ledger, self.admin, self.events, expected, self.stage.layout.state, deeds)
        assert (books.lost, books.doubled) == ([], []), books
        assert books.terminal == books.runs == len(expected) == len(self.events) * 5

    def _rest(self, expected: int) -> str:
        try:
            return unsettled(self.ledger, self.admin, expected)
        except TryLater as error:
            return error.reason

    def replay(self, *options: str) -> list[dict[str, Any]]:
        """The runs of a replay as an operator gives the command."""
        env = {**os.environ, "EVENTPROC_LEDGER_URL": self.stage.ledger_url}
        argv = [sys.executable, "-m", "admin", "replay", *options, "--json"]
        done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        runs: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
        return runs

    def ended(self, request_ids: list[str]) -> dict[str, tuple[str, int]]:
        """Of the events' runs that have ended: the state, and how many attempts it took."""
        query = select(RunRow.id, RunRow.state, RunRow.claims).where(
            RunRow.request_id.in_(request_ids), RunRow.state.in_(list(Outcome))
        )
        with self.ledger.read() as session:
            return {run: (state, claims) for run, state, claims in session.execute(query)}

    def told(self) -> Counter[str]:
        """In how many emails each run is."""
        mails = [email.message_from_bytes(path.read_bytes()) for path in self.stage.layout.mail.glob("*.eml")]
        return Counter(run for mail in mails for run in str(mail["X-Eventproc-Run"]).replace(",", " ").split())

    def worked(self) -> dict[str, int]:
        """How often each process said that it had done its work."""
        return {
            f"{station}-{number}": len(said(self.stage.layout.state, f"{station}-{number}", word))
            for station, word in DID.items()
            for number in (1, 2)
        }


def until(true: Callable[[], object], what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S:.0f} s for {what if isinstance(what, str) else what()}")
        threading.Event().wait(0.1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    stage = Stage(tmp_path_factory.mktemp("pairs"), settings={**SHARED, "EVENTPROC_MAIL_STORM_AFTER": "0"}, counts=TWO)
    stage.start(lambda text: None)
    made = Pairs(stage, tmp_path_factory.mktemp("archives"))
    yield made
    made.close()
    stage.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_archives_through_both_of_each_run_once_and_are_mailed_once(pairs: Pairs) -> None:
    for number in range(ARCHIVES):
        _, request_id = pairs.upload(number % 2, f"first-{number}")
        pairs.events[request_id] = ("every",)

    pairs.all_settled([])

    assert all(pairs.worked().values()), pairs.worked()


@pytest.mark.slow
def test_the_same_upload_at_both_ingresses_at_once_is_one_archive(pairs: Pairs) -> None:
    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            answers = list(pool.map(pairs.upload, (0, 1), [f"same-{number}"] * 2))
            assert sorted(code for code, _ in answers) == [200, 202]
            ((request_id),) = {request_id for _, request_id in answers}
            pairs.events[request_id] = ("every",)

    pairs.all_settled([])


@pytest.mark.slow
def test_registrations_of_one_name_at_both_registries_become_versions_of_one_handler(pairs: Pairs) -> None:
    layout = pairs.stage.layout
    credentials = grpc.ssl_channel_credentials(layout.certificates.ca.read_bytes())

    def register(number: int) -> Any:
        registration = api.Registration(
            name="by-both", hook=HOOK, tags=["none"], blob=pickled(), notify_on_failure="bad@example.com",
            python_version="3.11.7",
        )  # fmt: skip
        with grpc.secure_channel(pairs.stage.at_higher("registry", number % 2), credentials) as channel:
            stub = EventProcessingServiceStub(channel)
            request = api.RegisterRequest(registration=registration)
            return stub.Register(request, metadata=bearer(layout.api_keys["alice"]), timeout=60)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(register, range(12)))

    assert len({answer.handler.id for answer in answers}) == 1
    assert sorted(answer.handler.version for answer in answers) == list(range(12))
    assert {answer.check for answer in answers} == {f"loads in {RUNTIME}"}, "whichever registry the executors ask"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_when_one_of_each_is_gone_the_others_bring_everything_to_its_emails(pairs: Pairs) -> None:
    for number in range(ARCHIVES):
        _, request_id = pairs.upload(number % 2, f"second-{number}")
        pairs.events[request_id] = ("every",)
    gone = [f"{station}-1" for station in TWO]
    killed_at = time.time()
    for name in gone:
        pairs.stage.supervisor.take_down(name)
    for number in range(ARCHIVES // 2):
        _, request_id = pairs.upload(1, f"third-{number}")
        pairs.events[request_id] = ("every",)

    pairs.all_settled([Deed(killed_at, name, "kill") for name in gone])

    for name in gone:
        pairs.stage.supervisor.bring_back(name)
    until(pairs.stage.all_ready, "those who were gone to be ready again")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_past_archives_run_again_as_an_operator_says_and_a_new_handler_runs_on_them(pairs: Pairs) -> None:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    fresh = [pairs.upload(number % 2, f"past-{number}")[1] for number in range(4)]
    usual = {one.name for one in ALL if "every" in one.tags}
    until(lambda: len(pairs.ended(fresh)) == len(usual) * len(fresh), "the runs of the archives")

    planned = pairs.replay("--since", since, "--dry-run")
    assert Counter(run["handler"] for run in planned) == dict.fromkeys(usual, len(fresh))
    one = pairs.replay("--event", fresh[0])
    ranged = pairs.replay("--since", since)
    os.environ["BTRDB_CA_BUNDLE"] = str(pairs.stage.layout.certificates.ca)
    connection = Connection(pairs.stage.layout.at("btrdb"), pairs.stage.layout.api_keys["alice"])
    register(connection, "late", HOOK, "late@example.com", "late@example.com", tags=["late", "every"])(quick)
    with pairs.ledger.read() as session:
        (late,) = [view for view in list_handlers(session) if view.name == "late"]
    missed = pairs.replay("--since", since, "--handler", str(late.id), "--only", "missing")

    assert {run["handler"] for run in one} == usual and all(run["replay_of"] for run in one + ranged)
    assert {run["request_id"] for run in missed} == set(fresh) and len(missed) == len(fresh)
    assert pairs.replay("--since", since, "--handler", str(late.id), "--only", "missing", "--dry-run") == []
    made = {run["run_id"]: run["handler"] for run in one + ranged + missed}
    assert len(made) == len(usual) * (1 + len(fresh)) + len(fresh)
    due = {run for run, name in made.items() if name != "quiet"}
    until(lambda: made.keys() <= pairs.ended(fresh).keys(), "the runs of the replays")
    until(lambda: due <= pairs.told().keys(), "an email of each run")
    assert {run: pairs.ended(fresh)[run] for run in made} == {
        run: ("failed" if name == "raises" else "succeeded", 1) for run, name in made.items()
    }
    assert {run: count for run, count in pairs.told().items() if run in made} == dict.fromkeys(due, 1)
