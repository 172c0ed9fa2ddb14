"""Whose key it is, by a file that may change."""

from __future__ import annotations

import hashlib
import json
import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from callers import ApiKeys, UnknownKey


def write(file: Path, **users: dict[str, Any]) -> None:
    """A key file in which each user's key is the user's name."""
    entries = [
        {"sha256": hashlib.sha256(name.encode()).hexdigest(), "user": name, **more} for name, more in users.items()
    ]
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"keys": entries}))
    fresh.replace(file)


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_key_tells_its_user_and_roles(tmp_path: Path) -> None:
    write(tmp_path / "keys", alice={}, root={"roles": ["admin"]})
    keys = ApiKeys(tmp_path / "keys")
    assert not keys.of_key("alice").admin
    assert keys.caller([("authorization", "bearer root")]).admin
    for metadata in ([], [("authorization", "Basic x")], [("authorization", "Bearer nobody")]):
        with pytest.raises(UnknownKey):
            keys.caller(metadata)


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    write(tmp_path / "keys", alice={})
    keys = ApiKeys(tmp_path / "keys")
    write(tmp_path / "keys", bob={})
    assert keys.of_key("bob").user == "bob"
    with pytest.raises(UnknownKey):
        keys.of_key("alice")


def test_a_key_that_has_ended_is_refused_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "keys", alice={"not_after": at(-1)}, bob={"not_after": at(3600)}, root={})
    keys = ApiKeys(tmp_path / "keys")
    with pytest.raises(UnknownKey, match="the API key of alice has expired"):
        keys.of_key("alice")
    assert keys.of_key("bob").user == "bob"
    assert 3500 < keys.first_end() - time.time() <= 3600
    write(tmp_path / "keys", root={})
    assert keys.first_end() == math.inf


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '{"keys": [{"user": "alice"}]}', '{"keys": [{"sha256": "a", "user": "b", "not_after": "soon"}]}'],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(ValueError, match="keys: should be"):
        ApiKeys(tmp_path / "keys")
