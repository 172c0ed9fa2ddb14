"""The rules by which runs are leased and emails are sent; the same in every station that keeps the ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MailRules:
    """The storm guard: after so many emails of a kind (success, failure) to one recipient within the window, further runs of
    that kind go into digests for that recipient, one every digest_every_s, of at most digest_most runs each. 0: no guard."""

    storm_after: int = 100
    storm_window_s: float = 3600.0
    digest_every_s: float = 600.0
    digest_most: int = 500


@dataclass(frozen=True)
class KeepRules:
    """For how long what has ended is kept, in ms; None: for ever."""

    texts_ms: int | None = None
    runs_ms: int | None = None
    events_ms: int | None = None
    emails_ms: int | None = None
    handler_versions_ms: int | None = None
    redriven_ms: int | None = None
    audit_ms: int | None = None


@dataclass(frozen=True)
class Rules:
    """Times in seconds. per_owner and per_handler: how many may run at a time over all executors, 0 for no cap.

    invited_per_owner: how many invitations may be out at a time per owner and runtime; one that nobody took up counts as out
    for reinvite_after_s, then it is said again. owner_share: of the executors' slots, how many one owner alone may have; 1: all
    (ledger/executors.py).
    """

    lease_s: float = 180.0
    max_attempts: int = 3
    max_lost_together: int = 10
    max_hand_backs: int = 100
    per_owner: int = 0
    per_handler: int = 0
    first_wait_s: float = 1.0
    longest_wait_s: float = 300.0
    owner_share: float = 0.75
    invited_per_owner: int = 100
    reinvite_after_s: float = 30.0
    mail: MailRules = MailRules()

    @property
    def silence_s(self) -> float:
        """After how long without a registry's sign executors may not have been able to renew; much less than a lease."""
        return min(15.0, self.lease_s / 4)

    def wait_ms(self, times: int) -> int:
        """How long before the next try after so many: doubles from first_wait_s up to longest_wait_s."""
        return int(1000 * min(self.first_wait_s * 2 ** min(max(times - 1, 0), 20), self.longest_wait_s))
