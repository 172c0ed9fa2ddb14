"""Leases by the executor's own clock: lost before they can end in the ledger, kept while the registry answers."""

from collections.abc import Sequence

from executor.lease import Leases
from schemas.errors import TryLater


class Answers:
    """A registry whose answers to renew() are set by the test."""

    def __init__(self) -> None:
        self.away = False
        self.lost: list[str] = []
        self.asked: list[list[tuple[str, str]]] = []

    def renew(self, boot_id: str, executor: str, leases: Sequence[tuple[str, str]]) -> list[str]:
        self.asked.append(list(leases))
        if self.away:
            raise TryLater("registry: UNAVAILABLE")
        return self.lost


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def some_leases() -> tuple[Leases, Answers, Clock, list[tuple[str, str]]]:
    registry, clock, killed = Answers(), Clock(), []

    def lost(run_id: str, why: str) -> None:
        killed.append((run_id, why))

    leases = Leases(registry, "boot", "executor", renew_s=30.0, lost=lost, clock=clock)  # type: ignore[arg-type]
    return leases, registry, clock, killed


def test_a_renewed_lease_goes_on() -> None:
    leases, registry, clock, killed = some_leases()
    leases.hold("run", "lease", asked_at=clock(), lease_s=180.0)

    for _ in range(100):
        clock.now += 30
        leases.turn()

    assert leases.holds("run", "lease")
    assert registry.asked[0] == [("run", "lease")]
    assert killed == []


def test_a_lease_that_the_ledger_has_lost_is_killed_once() -> None:
    leases, registry, clock, killed = some_leases()
    leases.hold("run", "lease", asked_at=clock(), lease_s=180.0)
    registry.lost = ["run"]

    leases.turn()
    leases.turn()

    assert killed == [("run", "its lease was lost")]
    assert not leases.holds("run", "lease")


def test_a_minute_without_the_registry_ends_no_lease() -> None:
    leases, registry, clock, killed = some_leases()
    leases.hold("run", "lease", asked_at=clock(), lease_s=180.0)
    registry.away = True
    for _ in range(2):
        clock.now += 30
        leases.turn()
    registry.away = False
    leases.turn()
    clock.now += 170

    assert killed == []
    assert leases.holds("run", "lease")


def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_can_end_in_the_ledger() -> None:
    leases, registry, clock, killed = some_leases()
    leases.hold("run", "lease", asked_at=clock(), lease_s=180.0)
    registry.away = True
    gone_at = None
    for _ in range(6):
        clock.now += 30
        leases.turn()
        if killed and gone_at is None:
            gone_at = clock.now

    assert killed == [("run", "its lease could not be renewed")]
    assert gone_at is not None and gone_at < 1000 + 180


def test_a_claim_that_is_answered_twice_is_held_once() -> None:
    leases, _, clock, _ = some_leases()

    assert leases.hold("run", "lease", asked_at=clock(), lease_s=180.0)
    assert not leases.hold("run", "lease", asked_at=clock(), lease_s=180.0)


def test_a_lease_is_reckoned_from_before_the_question_was_sent() -> None:
    leases, _, clock, _ = some_leases()
    leases.hold("run", "lease", asked_at=clock() - 100, lease_s=180.0)
    clock.now += 81

    assert not leases.holds("run", "lease")
