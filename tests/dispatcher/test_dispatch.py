"""Events become frozen runs and invitations, however often they come and whatever breaks between."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import text

from dispatcher.dispatch import Dispatch
from ledger import Ledger
from ledger.handlers import HandlerView, remove
from ledger.rules import Rules
from schemas.encoding import decode
from schemas.errors import TryLater
from schemas.topics import tasks_topic
from stream.memory import MemoryBroker
from stream.messages import Message
from tests.invited import due

from .conftest import HOOK, RUNTIME, an_event

Handler = Callable[..., HandlerView]
TASKS = tasks_topic(RUNTIME)


@pytest.fixture
def dispatch(ledger: Ledger, broker: MemoryBroker) -> Dispatch:
    return Dispatch(ledger, broker.producer(), Rules())


def invited(broker: MemoryBroker) -> list[str]:
    return [str(decode("task", m.value, m.headers)["run_id"]) for m in broker.messages(TASKS)]


def made(ledger: Ledger) -> dict[str, str]:
    """Handler's name by run id."""
    with ledger.read() as session:
        rows = session.execute(text("SELECT run.id, handler.name FROM run JOIN handler ON handler.id = handler_id"))
        return {str(row[0]): str(row[1]) for row in rows}


def test_each_matching_handler_gets_a_run_and_one_invitation(
    ledger: Ledger, broker: MemoryBroker, dispatch: Dispatch, handler: Handler
) -> None:
    handler("partly", "north", "never"), handler("every"), handler("elsewhere", "south")

    assert dispatch.handle([an_event("north", "line-7")]) == []

    assert sorted(made(ledger).values()) == ["every", "partly"]
    assert sorted(invited(broker)) == sorted(made(ledger))


def test_a_handler_registered_after_the_last_batch_is_met_by_the_next(
    ledger: Ledger, dispatch: Dispatch, handler: Handler
) -> None:
    handler("first")
    dispatch.handle([an_event()])
    handler("second")

    dispatch.handle([an_event()])

    assert sorted(made(ledger).values()) == ["first", "first", "second"]


def test_an_event_that_comes_again_has_the_same_runs_whatever_was_registered_or_removed_since(
    ledger: Ledger, broker: MemoryBroker, dispatch: Dispatch, handler: Handler
) -> None:
    kept, gone = handler("kept"), handler("gone")
    event = an_event(request_id="5a0f0f5c-0000-4000-8000-000000000001")
    dispatch.handle([event])
    before = made(ledger)
    handler("new"), handler("kept", tags=("elsewhere",))
    with ledger.write() as session:
        remove(session, gone.id, "alice", False)

    Dispatch(ledger, broker.producer(), Rules()).handle([event])

    assert made(ledger) == before
    kept_run = next(run for run, name in before.items() if name == kept.name)
    assert invited(broker).count(kept_run) == 2


def test_what_was_recorded_but_not_invited_is_invited_when_the_event_comes_again(
    ledger: Ledger, broker: MemoryBroker, dispatch: Dispatch, handler: Handler
) -> None:
    handler("h")
    event = an_event()
    broker.away = True
    with pytest.raises(TryLater):
        dispatch.handle([event])
    assert len(made(ledger)) == 1  # the ledger had it before Kafka was asked
    broker.away = False

    dispatch.handle([event])

    assert invited(broker) == list(made(ledger))


def test_one_event_twice_in_a_batch_runs_once(
    ledger: Ledger, broker: MemoryBroker, dispatch: Dispatch, handler: Handler
) -> None:
    handler("h")
    event = an_event(request_id="5a0f0f5c-0000-4000-8000-000000000002")

    dispatch.handle([event, event])

    assert set(invited(broker)) == set(made(ledger)) and len(made(ledger)) == 1


def test_what_cannot_be_read_is_named_and_the_rest_of_the_batch_goes_on(
    ledger: Ledger, dispatch: Dispatch, handler: Handler
) -> None:
    handler("h")
    bad = Message(HOOK, 0, 1, None, json.dumps({"File": "a.zip"}).encode(), (), 0)

    (rejected,) = dispatch.handle([an_event(), bad, an_event()])

    assert rejected.message is bad and "DataSets is missing" in rejected.reason
    assert len(made(ledger)) == 2


def test_a_request_id_that_another_event_has_used_is_a_producer_s_error_that_names_both(
    ledger: Ledger, broker: MemoryBroker, dispatch: Dispatch, handler: Handler
) -> None:
    handler("h")
    first = an_event("north", request_id="5a0f0f5c-0000-4000-8000-000000000003")
    other = an_event("south", request_id="5a0f0f5c-0000-4000-8000-000000000003", offset=1)

    assert dispatch.handle([first]) == []
    (rejected,) = dispatch.handle([first, other])

    assert rejected.message is other
    assert """was of 'a.zip' with the tags ["north"]; this one, of 'a.zip' with the tags ['south']""" in rejected.reason
    assert len(made(ledger)) == 1


def test_an_event_that_is_too_large_to_be_handed_on_is_told_with_its_size(ledger: Ledger, broker: MemoryBroker) -> None:
    (rejected,) = Dispatch(ledger, broker.producer(), Rules(), event_bytes=1024).handle([an_event("x" * 2000)])

    assert "bytes as JSON; at most 1024 are taken (DISPATCHER_EVENT_BYTES)" in rejected.reason


def test_very_many_tags_match_as_ever_and_do_not_flood_the_log(
    ledger: Ledger, dispatch: Dispatch, handler: Handler, capsys: pytest.CaptureFixture[str]
) -> None:
    handler("h", "tag-99999")

    assert dispatch.handle([an_event(*(f"tag-{number}" for number in range(100_000)))]) == []

    assert list(made(ledger).values()) == ["h"]
    assert len(capsys.readouterr().out) < 10_000


def test_a_trace_of_the_event_goes_on_in_its_tasks(broker: MemoryBroker, dispatch: Dispatch, handler: Handler) -> None:
    handler("h")
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    dispatch.handle([an_event(headers=(("traceparent", trace),)), an_event()])

    assert [dict(m.headers).get("traceparent") for m in broker.messages(TASKS)].count(trace) == 1


def test_invitations_that_were_not_acknowledged_are_the_sweeper_s_at_once(
    ledger: Ledger, broker: MemoryBroker, dispatch: Dispatch, handler: Handler
) -> None:
    handler("h")
    dispatch.handle([an_event()])
    with ledger.write() as session:
        assert due(session, Rules(), 10).invitations == ()
    broker.away = True

    with pytest.raises(TryLater):
        dispatch.settle()

    dispatch.settle()  # once is enough
    with ledger.write() as session:
        assert [invitation.run_id for invitation in due(session, Rules(), 10).invitations] == list(made(ledger))
