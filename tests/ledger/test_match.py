"""Which handlers an event meets."""

from ledger.handlers import Matchable
from ledger.match import TagIndex
from schemas.events import Event

HOOK = "ctingress.on_complete"


def a_handler(number: int, *tags: str, hook: str = HOOK) -> Matchable:
    return Matchable(number, 0, hook, frozenset(tags), "alice", "py3.11")


def an_event(*tags: str) -> Event:
    return Event(HOOK, "r", tuple(sorted(tags)), "a.zip", "2020-01-01T00:00:00Z", {})


def met(index: TagIndex, *tags: str) -> list[int]:
    return [matched.handler.handler_id for matched in index.match(an_event(*tags))]


def test_one_tag_in_common_is_enough() -> None:
    index = TagIndex([a_handler(1, "north", "south"), a_handler(2, "east")], revision=1)

    assert met(index, "north", "west") == [1]


def test_a_handler_without_tags_meets_every_event() -> None:
    index = TagIndex([a_handler(1), a_handler(2, "east")], revision=1)

    assert met(index, "north") == [1]
    assert met(index, "east") == [1, 2]


def test_an_event_without_tags_meets_only_handlers_without_tags() -> None:
    index = TagIndex([a_handler(1), a_handler(2, "east")], revision=1)

    assert met(index) == [1]


def test_a_handler_that_shares_several_tags_is_met_once_and_says_which() -> None:
    index = TagIndex([a_handler(3, "a", "b", "c")], revision=1)

    (matched,) = index.match(an_event("c", "b", "z"))

    assert matched.shared_tags == ("b", "c")
    assert matched.why == "shares b, c"


def test_handlers_of_other_hooks_are_not_met() -> None:
    index = TagIndex([a_handler(1, hook="other")], revision=1)

    assert met(index, "north") == []


def test_tags_are_compared_to_the_letter() -> None:
    index = TagIndex([a_handler(1, "North")], revision=1)

    assert met(index, "north") == []


def test_only_the_handlers_of_the_event_s_tags_are_looked_at() -> None:
    class Counted(frozenset[str]):
        looked_at = 0

        def __and__(self, other: object) -> frozenset[str]:
            Counted.looked_at += 1
            return super().__and__(other)  # type: ignore[operator]

        __rand__ = __and__

    others = [Matchable(n, 0, HOOK, Counted({f"tag-{n}"}), "alice", "py3.11") for n in range(1000)]
    index = TagIndex([*others, Matchable(5000, 0, HOOK, Counted({"north"}), "alice", "py3.11")], revision=1)

    assert met(index, "north") == [5000]
    assert Counted.looked_at <= 1
