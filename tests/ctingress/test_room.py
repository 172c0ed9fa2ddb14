"""Who works beside whom in one process."""

from __future__ import annotations

import threading
import time

from ctingress.room import Room


def test_the_suspect_waits_for_who_is_inside_and_lets_nobody_in_before_it() -> None:
    room, order = Room(), list[str]()
    inside, let_go = threading.Event(), threading.Event()

    def one(name: str, alone: bool) -> threading.Thread:
        def work() -> None:
            with room.entered(alone):
                order.append(name)
                inside.set()
                let_go.wait()
                order.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    first = one("first", False)
    assert inside.wait(30)
    suspect = one("suspect", True)
    while not room._alone:
        time.sleep(0.001)
    other = one("other", False)
    let_go.set()
    for thread in (first, suspect, other):
        thread.join(30)

    assert order == ["first", "first", "suspect", "suspect", "other", "other"]


def test_any_number_is_inside_at_a_time_where_none_is_suspect() -> None:
    room = Room()
    with room.entered(False), room.entered(False):
        assert not room._alone
