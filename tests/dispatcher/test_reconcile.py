"""The books as metrics."""

import threading
from collections.abc import Callable

from prometheus_client import REGISTRY
from sqlalchemy import text

from dispatcher.dispatch import Dispatch
from dispatcher.reconcile import Reconciler
from dispatcher.settings import SweeperSettings
from ledger import Ledger
from ledger.engine import now_ms
from ledger.handlers import HandlerView
from ledger.rules import Rules
from stream.memory import MemoryBroker
from stream.messages import Message
from stream.schema_book import SchemaBook

from .conftest import HOOK, RUNTIME, an_event

GROUP = "eventproc-dispatcher"


def figure(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def reconciler(ledger: Ledger, broker: MemoryBroker, name: str = "one") -> Reconciler:
    book = SchemaBook(broker.admin(), broker.producer())
    return Reconciler(ledger, broker.admin(), book, GROUP, SweeperSettings(REGISTRY_RUNTIMES=RUNTIME), name)


def dispatched(ledger: Ledger, broker: MemoryBroker, message: Message) -> None:
    """Published, consumed, in the ledger."""
    broker.producer().send(HOOK, message.value)
    (*_, message) = broker.messages(HOOK)
    Dispatch(ledger, broker.producer(), Rules()).handle([message])
    broker.commits[GROUP][(HOOK, 0)] = message.offset + 1


def test_what_does_not_add_up_shows_by_kind_and_goes_away_again(
    ledger: Ledger, broker: MemoryBroker, handler: Callable[..., HandlerView]
) -> None:
    handler("h")
    dispatched(ledger, broker, an_event())
    one = reconciler(ledger, broker)

    assert one.turn() is not None
    assert figure("eventproc_unaccounted", kind="event_without_run") == 0
    assert figure("eventproc_runs_state", state="queued") == 1
    with ledger.write() as session:
        session.execute(text("UPDATE run SET id = 'x'"))
    one.turn()
    assert figure("eventproc_unaccounted", kind="event_without_run") == 1
    with ledger.write() as session:
        session.execute(text("DELETE FROM event"))
        session.execute(text("DELETE FROM run"))
    one.turn()
    assert figure("eventproc_unaccounted", kind="event_without_run") == 0
    assert figure("eventproc_runs_state", state="queued") == 0, "a state that nothing is in any more is not left behind"


def test_who_does_not_lead_shows_no_figures(ledger: Ledger, broker: MemoryBroker) -> None:
    first, second = reconciler(ledger, broker), reconciler(ledger, broker, "two")
    assert first.turn() is not None
    assert second.turn() is None
    assert figure("eventproc_unaccounted", kind="event_without_run") is None
    with ledger.write() as session:
        session.execute(text("UPDATE leader SET until_ms = 0"))
    assert second.turn() is not None
    assert figure("eventproc_unaccounted", kind="event_without_run") == 0


def test_how_long_runs_have_been_due_shows_by_runtime_with_who_leads_alone(
    ledger: Ledger, broker: MemoryBroker, handler: Callable[..., HandlerView]
) -> None:
    handler("h")
    dispatched(ledger, broker, an_event())
    with ledger.write() as session:
        session.execute(text("UPDATE run SET not_before_ms = not_before_ms - 100000"))
    first, second = reconciler(ledger, broker), reconciler(ledger, broker, "two")

    assert first.look()
    age_s = figure("eventproc_oldest_queued_seconds", runtime=RUNTIME)
    assert age_s is not None and 100 <= age_s < 130
    assert figure("eventproc_oldest_queued_seconds", runtime="other") == 0

    assert not second.look()
    assert figure("eventproc_oldest_queued_seconds", runtime=RUNTIME) is None


def test_events_are_judged_with_each_look(
    ledger: Ledger, broker: MemoryBroker, handler: Callable[..., HandlerView]
) -> None:
    def judged() -> float:
        return sum(figure("eventproc_events_started_total", in_time=word) or 0 for word in ("yes", "no"))

    handler("h")
    one = reconciler(ledger, broker)
    one.look()
    before = judged()
    dispatched(ledger, broker, an_event())
    one.look()
    assert judged() == before, "it has not had its time"
    one._judged_until_ms = (one._judged_until_ms or 0) - 120_000  # as if the last look had been so long ago
    with ledger.write() as session:
        session.execute(text("UPDATE event SET received_at_ms = received_at_ms - 60000"))

    one.look()

    assert judged() == before + 1


def test_one_that_is_told_to_end_gives_its_lead_back(ledger: Ledger, broker: MemoryBroker) -> None:
    first, second, stop = reconciler(ledger, broker), reconciler(ledger, broker, "two"), threading.Event()
    assert first.turn() is not None
    assert not second.look() and second.turn() is None

    stop.set()
    first.keep_looking(stop)

    assert second.look()


def test_a_lead_is_short_however_long_a_comparison_may_take(ledger: Ledger, broker: MemoryBroker) -> None:
    def left_s() -> float:
        with ledger.read() as session:
            until_ms = session.scalar(text("SELECT until_ms FROM leader WHERE name = 'reconcile'"))
            return (int(until_ms or 0) - now_ms(session)) / 1000

    one = reconciler(ledger, broker)
    one.turn()
    assert 0 < left_s() <= 45
    one.look()
    assert 0 < left_s() <= 45


def test_an_event_that_was_consumed_and_is_not_in_the_ledger_shows_until_it_is_there(
    ledger: Ledger, broker: MemoryBroker
) -> None:
    one, lost = reconciler(ledger, broker), an_event()
    dispatched(ledger, broker, an_event())
    one.turn()
    assert figure("eventproc_unaccounted", kind="event_lost") == 0
    # given one of which the ledger knows nothing, though its offset is committed
    broker.producer().send(HOOK, lost.value)
    broker.commits[GROUP][(HOOK, 0)] = 2

    for _ in range(2):
        books = one.turn()
        assert books is not None and [p.kind for p in books.problems] == ["event_lost"]
        assert books.problems[0].names[0].startswith(f"{HOOK}/0/1: RequestID ")
        assert figure("eventproc_unaccounted", kind="event_lost") == 1
    dispatched(ledger, broker, lost)
    one.turn()
    assert figure("eventproc_unaccounted", kind="event_lost") == 0


def test_a_broker_that_is_away_leaves_the_ledger_s_figures(ledger: Ledger, broker: MemoryBroker) -> None:
    one = reconciler(ledger, broker)
    broker.away = True
    assert one.turn() is not None
    broker.away = False
    assert one.turn() is not None
