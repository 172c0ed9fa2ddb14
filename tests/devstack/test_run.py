"""Who brings a stack up is alone in it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from devstack.run import NotUp, bring_up


def test_a_second_make_up_is_told_that_one_is_starting(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        with pytest.raises(NotUp, match="another make up is starting the stack"):
            bring_up(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["up.lock"]
