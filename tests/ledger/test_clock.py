"""Machines disagree about the time; only the database's clock counts."""

from __future__ import annotations

import time

import pytest

from ledger import Ledger, outbox, sweeper
from ledger.claims import ClaimedRun, renew
from ledger.rules import Rules
from tests.invited import due
from tests.ledger.conftest import RULES, Queued, claimed, ended, leased


@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_a_machine_an_hour_off_ends_no_lease_early_or_late_and_invites_and_mails_in_time(
    ledger: Ledger, queued: Queued, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    (one,) = queued()
    lease = leased(ledger, one.run_id)
    (two,) = queued()
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + off_s)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + off_s * 10**9)

    with ledger.write() as session:  # the sweeper's machine is off
        assert sweeper.ended_leases(session) == []
        assert sweeper.lead(session, "sweeper", "off", 60.0) and not sweeper.lead(session, "sweeper", "other", 60.0)
        sweeper.heartbeat(session, RULES)
        assert sweeper.answering_since_ms(session, RULES) is not None
        assert due(session, Rules(reinvite_after_s=60.0), 10).invitations == ()  # both were invited just now
        assert renew(session, [lease], RULES) == []  # the registry's
    assert isinstance(claimed(ledger, two.run_id, nonce="another"), ClaimedRun)
    assert ended(ledger, lease).counted  # the notifier's
    with ledger.write() as session:
        assert len(outbox.take(session, "off", 10, 60.0)) == 1
    with ledger.write() as session:
        assert outbox.take(session, "other", 10, 60.0) == []
