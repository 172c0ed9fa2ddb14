"""Who brings a stack up is alone in it; and on a Kafka that is there already it is not in the way of another."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from devstack.run import NotUp, bring_up
from devstack.stack import GROUPS, Stack


def test_a_second_make_up_is_told_that_one_is_starting(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        with pytest.raises(NotUp, match="another make up is starting the stack"):
            bring_up(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["up.lock"]


def test_on_a_kafka_that_is_there_each_stack_has_groups_of_its_own_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    one, other = (Stack(tmp_path / name, apart=True).groups for name in ("one", "other"))

    assert set(one) == set(other) == set(GROUPS)
    assert not set(one.values()) & set(other.values())
    assert all(group.startswith(GROUPS[name]) for name, group in one.items())
    assert one["SWEEPER_NOTIFIER_GROUP"] == one["NOTIFIER_GROUP"]
    assert Stack(tmp_path / "one", apart=True).groups == one
