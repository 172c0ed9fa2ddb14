"""What running handlers print is told every second, in order, under its lease, and never holds anything up."""

from __future__ import annotations

from collections.abc import Sequence

from executor.follow import AT_ONCE, MOST, STOPPED, YOUNG_S, Follow
from schemas.errors import TryLater


class Kept:
    """A registry that keeps what it is told, up to room characters; lost: leases that count no more."""

    def __init__(self) -> None:
        self.logs: dict[str, str] = {}
        self.away = self.answer_is_lost = False
        self.room = MOST + 1024
        self.lost: set[str] = set()
        self.calls = 0

    def append_log(self, printed: Sequence[tuple[str, str, int, str]]) -> list[int]:
        self.calls += 1
        if self.away:
            raise TryLater("registry: UNAVAILABLE")
        had = []
        for run_id, lease_id, at, text in printed:
            known = self.logs.setdefault(run_id, "")
            if at == len(known) and len(known) + len(text) <= self.room and lease_id not in self.lost:
                self.logs[run_id] += text
            had.append(-1 if lease_id in self.lost else len(self.logs[run_id]))
        if self.answer_is_lost:
            raise TryLater("registry: DEADLINE_EXCEEDED")
        return had


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def some() -> tuple[Follow, Kept, Clock]:
    registry, clock = Kept(), Clock()
    return Follow(registry, clock), registry, clock  # type: ignore[arg-type]


def test_runs_of_less_than_a_second_cost_no_call() -> None:
    follow, registry, clock = some()
    run = follow.begin("run", "lease")
    run.add("one\n")

    clock.now += YOUNG_S / 2
    follow.turn()
    follow.end(run)
    clock.now += YOUNG_S
    follow.turn()

    assert registry.calls == 0


def test_all_that_is_printed_is_told_in_order_and_only_when_there_is_something() -> None:
    follow, registry, clock = some()
    one, two = follow.begin("one", "l1"), follow.begin("two", "l2")
    clock.now += 2

    one.add("a\n"), one.add("b\n"), two.add("x\n")
    for _ in range(3):
        follow.turn()
    one.add("c\n")
    follow.turn()

    assert registry.logs == {"one": "a\nb\nc\n", "two": "x\n"} and registry.calls == 2


def test_what_could_not_be_told_is_told_later_and_what_was_told_is_not_told_twice() -> None:
    follow, registry, clock = some()
    run = follow.begin("run", "lease")
    clock.now += 2
    run.add("a\n")
    registry.away = True
    follow.turn()
    registry.away, registry.answer_is_lost = False, True
    follow.turn()  # it came through, but the answer did not
    registry.answer_is_lost = False
    run.add("b\n")
    for _ in range(3):
        follow.turn()

    assert registry.logs == {"run": "a\nb\n"}


def test_a_run_whose_lease_is_lost_is_followed_no_more() -> None:
    follow, registry, clock = some()
    run = follow.begin("run", "lease")
    clock.now += 2
    registry.lost = {"lease"}
    run.add("a\n")
    follow.turn()

    assert run.add("b\n") is False
    follow.turn()
    assert registry.calls == 1


def test_a_torrent_is_told_in_parts_and_says_where_there_is_no_more_room() -> None:
    follow, registry, clock = some()
    run = follow.begin("run", "lease")
    clock.now += 2
    line = "x" * 999 + "\n"

    while run.add(line):
        pass
    assert run.add(line) is False
    for _ in range(2 * MOST // AT_ONCE):
        follow.turn()

    assert registry.logs["run"] == (line * MOST)[:MOST] + STOPPED
    assert registry.calls == MOST // AT_ONCE + 1


def test_a_registry_that_takes_no_more_is_asked_no_more() -> None:
    follow, registry, clock = some()
    run = follow.begin("run", "lease")
    clock.now += 2
    registry.room = 2
    run.add("abc\n")
    follow.turn()
    run.add("d\n")
    follow.turn()

    assert registry.calls == 1


def test_the_end_of_one_attempt_does_not_end_the_next() -> None:
    follow, registry, clock = some()
    first = follow.begin("run", "l1")
    second = follow.begin("run", "l2")
    follow.end(first)
    clock.now += 2

    second.add("new\n")
    follow.turn()

    assert registry.logs == {"run": "new\n"}
