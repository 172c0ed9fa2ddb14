"""Which handlers an event meets and why: the query says what the dispatcher does."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import text

from ledger import Ledger
from ledger.events import record_events
from ledger.handlers import matchable, revision
from ledger.match import TagIndex
from ledger.why import event_tags, frozen, verdicts
from tests.ledger.conftest import HOOK, Handler, an_event, match_of

TAGS = some.frozensets(some.sampled_from("abcd"), max_size=3)


def test_every_handler_is_told_with_its_reason_those_that_match_first(ledger: Ledger, handler: Handler) -> None:
    handler("no", tags=("east",))
    handler("some", tags=("north", "south"))
    handler("all", tags=())
    paused = handler("paused", tags=("north",))
    with ledger.write() as session:
        session.execute(text("UPDATE handler SET paused = :yes WHERE id = :id"), {"yes": True, "id": paused.id})
        told = [(v.name, v.matches, v.why) for v in verdicts(session, HOOK, ("north", "west"))]

    assert told == [
        ("some", True, "shares north"),
        ("all", True, "has no tags, so it takes every event"),
        ("no", False, "wants one of east; the event has north, west"),
        ("paused", False, "is paused"),
    ]


def test_what_an_event_met_when_it_came_stays_told(ledger: Ledger, handler: Handler) -> None:
    event, first = an_event(), handler("first")
    with ledger.write() as session:
        (recorded,) = record_events(session, [(event, [match_of(first)])])
    handler("first", blob=b"newer")
    handler("late")

    with ledger.read() as session:
        assert event_tags(session, HOOK, event.request_id) == ("north",)
        assert event_tags(session, HOOK, "unknown") is None
        (met,) = frozen(session, HOOK, event.request_id)
    assert (met.name, met.version, met.state, met.run_id) == ("first", 0, "queued", recorded.invitations[0].run_id)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(handlers=some.lists(TAGS, max_size=5), event=TAGS)
def test_the_query_and_the_dispatcher_agree(
    ledger: Ledger, handler: Handler, handlers: list[frozenset[str]], event: frozenset[str]
) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE handler SET removed_at_ms = 1 WHERE removed_at_ms IS NULL"))
    for number, tags in enumerate(handlers):
        handler(f"h{number}", tags=tuple(sorted(tags)))
    with ledger.read() as session:
        index = TagIndex(matchable(session), revision(session))
        matched = {m.handler.handler_id: m.why for m in index.match(an_event(tags=tuple(sorted(event))))}
        told = {v.handler_id: v.why for v in verdicts(session, HOOK, tuple(sorted(event))) if v.matches}
    assert told == matched
