"""Who is invited next, on both databases: owners in turn, no more than there is room for, nobody forgotten."""

from sqlalchemy import text

from ledger import Ledger
from ledger.events import record_events
from ledger.fair import Due
from ledger.rules import Rules
from tests.invited import due
from tests.ledger.conftest import Handler, Queued, an_event, claimed, match_of, set_back

FEW = Rules(lease_s=60.0, invited_per_owner=5, reinvite_after_s=60.0)


def found(ledger: Ledger, rules: Rules, limit: int = 100) -> Due:
    with ledger.write() as session:
        return due(session, rules, limit)


def forget_invitations(ledger: Ledger) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE run SET invited_at_ms = NULL"))


def test_invitations_go_round_the_owners_and_no_owner_has_more_than_its_share_out(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    queued(20, handler("flood", owner="alice"))
    queued(2, handler("calm", owner="bob"))
    forget_invitations(ledger)

    first, second, third = found(ledger, FEW, 6), found(ledger, FEW), found(ledger, FEW)

    assert [invitation.owner for invitation in first.invitations].count("bob") == 2
    assert [invitation.owner for invitation in second.invitations] == ["alice"]
    assert not set(first.invitations) & set(second.invitations)
    assert (third.invitations, third.waiting) == ((), True)


def test_an_owner_s_handlers_take_turns_too(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    many, few = handler("many"), handler("few")
    queued(20, many)
    last = queued(1, few)
    forget_invitations(ledger)

    assert last[0] in found(ledger, FEW, 2).invitations


def test_an_invitation_that_nobody_took_up_is_said_again(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    assert found(ledger, FEW).invitations == ()
    with ledger.write() as session:
        set_back(session, "invited_at_ms", run.run_id, 61_000)

    assert found(ledger, FEW).invitations == (run,)


def test_a_cap_leaves_room_for_what_may_run_and_no_more(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    runs = queued(10, handler("flood"))
    forget_invitations(ledger)
    capped = Rules(lease_s=60.0, per_owner=3, invited_per_owner=100)

    first = found(ledger, capped)
    assert len(first.invitations) == 3 and first.waiting
    for invitation in first.invitations:
        claimed(ledger, invitation.run_id, nonce=invitation.run_id, rules=capped)
    assert found(ledger, capped).invitations == ()

    per_handler = Rules(lease_s=60.0, per_handler=4, invited_per_owner=100)
    assert len(found(ledger, per_handler).invitations) == 1
    assert len(runs) == 10


def test_of_a_flood_only_a_few_are_invited_at_once_and_the_rest_in_the_order_in_which_they_came(
    ledger: Ledger, handler: Handler
) -> None:
    match = match_of(handler())
    invited = []
    with ledger.write() as session:
        for _ in range(4):
            recorded = record_events(session, [(an_event(), [match]) for _ in range(3)], FEW)
            invited.append(sum(len(record.invitations) for record in recorded))
    assert invited == [3, 2, 0, 0]

    for_all = Rules(lease_s=60.0, invited_per_owner=100)
    waiting = found(ledger, for_all).invitations
    with ledger.read() as session:
        order = session.execute(text("SELECT id FROM run ORDER BY queued_at_ms, id")).scalars().all()
    assert [invitation.run_id for invitation in waiting] == [i for i in order if i in {w.run_id for w in waiting}]
    assert len(waiting) == 7


def test_who_has_runs_waiting_does_not_pass_them_with_new_ones(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    queued(1, handler("older"))
    forget_invitations(ledger)
    newer, bobs = match_of(handler("newer")), match_of(handler("bobs", owner="bob"))
    with ledger.write() as session:
        (new,) = record_events(session, [(an_event(), [newer])], FEW)
        (other,) = record_events(session, [(an_event(), [bobs])], FEW)

    assert (new.runs, new.invitations) == (1, ())
    assert len(other.invitations) == 1


def test_a_redelivered_event_invites_again_only_what_had_been_invited(ledger: Ledger, handler: Handler) -> None:
    event, matches = an_event(), [match_of(handler(f"h{number}")) for number in range(8)]
    with ledger.write() as session:
        (first,) = record_events(session, [(event, matches)], FEW)
        (again,) = record_events(session, [(event, matches)], FEW)

    assert len(first.invitations) == 5
    assert set(again.invitations) == set(first.invitations)
    assert (again.new, again.runs) == (False, 0)


def test_more_groups_than_one_turn_looks_at_all_get_their_turn(ledger: Ledger, handler: Handler) -> None:
    matches = [match_of(handler(f"h{number}", owner=f"owner{number}")) for number in range(230)]
    with ledger.write() as session:
        record_events(session, [(an_event(), matches)], FEW)
    forget_invitations(ledger)

    invited: set[str] = set()
    turns = 0
    while len(invited) < 230:
        turns += 1
        assert turns < 20
        invited.update(invitation.run_id for invitation in found(ledger, FEW, 1000).invitations)
