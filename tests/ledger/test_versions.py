"""A handler's versions on both databases: what each was, the way back to one, pausing and resuming."""

from __future__ import annotations

import pytest

from ledger import Ledger
from ledger.handlers import (
    NoSuchHandler,
    NotOwner,
    Options,
    blob,
    get_handler,
    list_handlers,
    matchable,
    remove,
    revision,
)
from ledger.versions import (
    NoSuchVersion,
    WaitsForKey,
    pause_for_key,
    resume_after_key,
    rollback,
    set_paused,
    version,
    versions,
)
from tests.ledger.conftest import HOOK, Handler


def test_versions_are_told_newest_first_each_as_it_was_registered(ledger: Ledger, handler: Handler) -> None:
    handler(tags=("old",), options=Options(retries=3, description="the first"), requirements=("scipy",))
    view = handler(tags=("new",), blob=b"another", source="def h(): ...")

    with ledger.read() as session:
        new, old = versions(session, view.id)
        code = blob(session, old.digest)

    assert [(one.version, one.present, one.tags) for one in (new, old)] == [(1, True, ("new",)), (0, False, ("old",))]
    assert old.options == Options(retries=3, description="the first") and new.options == Options()
    assert old.requirements == ("scipy",) and new.source == "def h(): ..." and code == b"pickle of h"


def test_rolling_back_makes_a_new_version_of_the_old_and_keeps_the_id(ledger: Ledger, handler: Handler) -> None:
    handler(tags=("old",), options=Options(timeout_s=7.0))
    view = handler(tags=("new",), blob=b"another")
    with ledger.read() as session:
        before = revision(session)

    with ledger.write() as session:
        back = rollback(session, view.id, 0, "alice", False)

    assert (back.id, back.version, back.tags, back.options.timeout_s) == (view.id, 2, ("old",), 7.0)
    with ledger.read() as session:
        assert revision(session) > before
        assert version(session, view.id, None).digest == version(session, view.id, 0).digest
        assert [one.version for one in matchable(session)] == [2]


def test_what_is_not_there_or_somebody_elses_is_refused_and_stays_as_it_is(ledger: Ledger, handler: Handler) -> None:
    view = handler()

    with ledger.write() as session:
        with pytest.raises(NoSuchVersion, match="has no version 7; it has 0 to 0"):
            rollback(session, view.id, 7, "alice", False)
        with pytest.raises(NotOwner, match="belongs to alice"):
            rollback(session, view.id, 0, "bob", False)
        with pytest.raises(NotOwner, match="belongs to alice"):
            set_paused(session, view.id, True, "bob", False)
        with pytest.raises(NoSuchHandler):
            versions(session, view.id + 1)
        with pytest.raises(NoSuchVersion):
            version(session, view.id, 7)
    with ledger.write() as session:
        assert rollback(session, view.id, 0, "root", True).version == 1  # an admin may
        remove(session, view.id, "alice", False)
    with ledger.write() as session, pytest.raises(NoSuchHandler):
        rollback(session, view.id, 0, "alice", False)


def test_a_paused_handler_meets_no_event_until_it_is_resumed(ledger: Ledger, handler: Handler) -> None:
    view = handler()

    with ledger.write() as session:
        assert set_paused(session, view.id, True, "alice", False).paused
        assert set_paused(session, view.id, True, "alice", False).paused
        assert matchable(session) == []
    handler()  # registered anew it stays paused
    with ledger.write() as session:
        assert matchable(session) == []
        assert not set_paused(session, view.id, False, "alice", False).paused
        assert [one.version for one in matchable(session)] == [1]


def test_what_is_paused_for_its_owners_key_is_resumed_by_another_key_alone(ledger: Ledger, handler: Handler) -> None:
    view = handler()
    with ledger.write() as session:
        assert pause_for_key(session, "alice") == 1

    with ledger.write() as session, pytest.raises(WaitsForKey, match="BTrDB refuses the API key of alice"):
        set_paused(session, view.id, False, "alice", False)
    with ledger.write() as session:
        assert [one.paused for one in resume_after_key(session, "alice")] == [False]


def test_a_handler_is_found_by_its_name(ledger: Ledger, handler: Handler) -> None:
    view, elsewhere = handler("fault"), handler("fault", hook="another.hook")

    with ledger.write() as session:
        assert [one.id for one in list_handlers(session, name="fault")] == [view.id, elsewhere.id]
        assert [one.id for one in list_handlers(session, HOOK, name="fault")] == [view.id]
        assert list_handlers(session, name="Fault") == []
        remove(session, view.id, "alice", False)
        assert list_handlers(session, HOOK, name="fault") == []
        assert get_handler(session, view.id) is None
