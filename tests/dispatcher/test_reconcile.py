"""The books as metrics."""

from collections.abc import Callable

from prometheus_client import REGISTRY
from sqlalchemy import text

from dispatcher.dispatch import Dispatch
from dispatcher.reconcile import Reconciler
from dispatcher.settings import SweeperSettings
from ledger import Ledger
from ledger.handlers import HandlerView
from ledger.rules import Rules
from stream.memory import MemoryBroker

from .conftest import RUNTIME, an_event


def figure(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_what_does_not_add_up_shows_by_kind_and_goes_away_again(
    ledger: Ledger, broker: MemoryBroker, handler: Callable[..., HandlerView]
) -> None:
    handler("h")
    Dispatch(ledger, broker.producer(), Rules()).handle([an_event()])
    settings = SweeperSettings(REGISTRY_RUNTIMES=RUNTIME)
    reconciler = Reconciler(ledger, settings, "one")

    assert reconciler.turn() is not None
    assert figure("eventproc_unaccounted", kind="event_without_run") == 0
    assert figure("eventproc_runs_state", state="queued") == 1
    with ledger.write() as session:
        session.execute(text("UPDATE run SET id = 'x'"))
    reconciler.turn()
    assert figure("eventproc_unaccounted", kind="event_without_run") == 1
    assert Reconciler(ledger, settings, "two").turn() is None
