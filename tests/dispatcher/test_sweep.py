"""The sweeper frees, invites and closes only when it is sure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from dispatcher.dispatch import Dispatch
from dispatcher.settings import SweeperSettings
from dispatcher.sweep import Sweeper
from ledger import Ledger
from ledger.claims import Claimant, ClaimedRun, claim
from ledger.handlers import HandlerView
from ledger.rules import Rules
from ledger.sweeper import heartbeat
from schemas.errors import TryLater
from schemas.records import Outcome
from schemas.topics import RESULTS, tasks_topic
from stream.memory import MemoryBroker

from .conftest import RUNTIME, an_event

Handler = Callable[..., HandlerView]
RULES = Rules(lease_s=60.0, first_wait_s=0.0, reinvite_after_s=0.001)


def a_sweeper(ledger: Ledger, broker: MemoryBroker, boot_id: str = "one", **changed: Any) -> Sweeper:
    given: dict[str, Any] = {"REGISTRY_RUNTIMES": RUNTIME, **changed}
    settings = SweeperSettings(**given)
    return Sweeper(ledger, broker.producer(), broker.admin(), RULES, settings, boot_id)


@pytest.fixture
def run_id(ledger: Ledger, broker: MemoryBroker, handler: Handler) -> str:
    """A run that was invited once."""
    handler("h")
    Dispatch(ledger, broker.producer(), Rules()).handle([an_event()])
    with ledger.read() as session:
        return str(session.execute(text("SELECT id FROM run")).scalar_one())


def state(ledger: Ledger, run_id: str) -> str:
    with ledger.read() as session:
        return str(session.execute(text("SELECT state FROM run WHERE id = :id"), {"id": run_id}).scalar_one())


def claimed(ledger: Ledger, run_id: str) -> None:
    with ledger.write() as session:
        ((_, answer),) = claim(session, Claimant("boot", "nonce", "executor"), [run_id], RULES)
    assert isinstance(answer, ClaimedRun)


def time_passes(ledger: Ledger, seconds: float, *columns: str) -> None:
    """As if the run's times lay so much further back."""
    with ledger.write() as session:
        for column in columns:
            session.execute(text(f"UPDATE run SET {column} = {column} - {int(seconds * 1000)}"))


def registry_answers(ledger: Ledger, since_s: float) -> None:
    """As if the registry had answered for so long."""
    with ledger.write() as session:
        heartbeat(session, RULES)
        session.execute(text(f"UPDATE heartbeat SET since_ms = since_ms - {int(since_s * 1000)}"))


def invitations(broker: MemoryBroker) -> int:
    return len(broker.messages(tasks_topic(RUNTIME)))


def test_an_invitation_that_nobody_took_up_is_said_again(ledger: Ledger, broker: MemoryBroker, run_id: str) -> None:
    time_passes(ledger, 5, "invited_at_ms")

    a_sweeper(ledger, broker).turn()

    assert invitations(broker) == 2


def test_only_one_of_two_sweepers_is_active(ledger: Ledger, broker: MemoryBroker, run_id: str) -> None:
    first, second = a_sweeper(ledger, broker), a_sweeper(ledger, broker, "two")
    first.turn()
    before = invitations(broker)
    time_passes(ledger, 5, "invited_at_ms")

    second.turn()
    assert invitations(broker) == before

    first.turn()
    assert invitations(broker) == before + 1


def test_a_run_whose_lease_has_ended_is_freed_once_the_results_are_read(
    ledger: Ledger, broker: MemoryBroker, run_id: str
) -> None:
    claimed(ledger, run_id)
    time_passes(ledger, 1000, "lease_until_ms")
    registry_answers(ledger, 1000)
    broker.producer().send(RESULTS, b"a result on its way", key=b"k")
    sweeper = a_sweeper(ledger, broker)

    sweeper.turn()
    assert state(ledger, run_id) == "running"  # the notifier has not read that far

    reader = broker.consumer([RESULTS], "eventproc-notifier")
    reader.commit(reader.poll(0, 10))
    sweeper.turn()
    assert state(ledger, run_id) == "queued"


def test_no_lease_ends_while_the_registry_could_not_be_asked(ledger: Ledger, broker: MemoryBroker, run_id: str) -> None:
    claimed(ledger, run_id)
    time_passes(ledger, 1000, "lease_until_ms")
    sweeper = a_sweeper(ledger, broker)

    sweeper.turn()
    assert state(ledger, run_id) == "running"  # nobody has ever answered

    registry_answers(ledger, 5)
    sweeper.turn()
    assert state(ledger, run_id) == "running"  # answers again, but for less than a lease


def test_a_run_whose_runtime_nobody_serves_is_refused_in_the_end(
    ledger: Ledger, broker: MemoryBroker, run_id: str
) -> None:
    time_passes(ledger, 7200, "queued_at_ms")

    a_sweeper(ledger, broker, REGISTRY_RUNTIMES="py3.12").turn()

    assert state(ledger, run_id) == Outcome.REFUSED


def test_a_broker_that_is_away_is_for_later(ledger: Ledger, broker: MemoryBroker, run_id: str) -> None:
    time_passes(ledger, 5, "invited_at_ms")
    broker.away = True

    with pytest.raises(TryLater):
        a_sweeper(ledger, broker).turn()
