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
from structlog.testing import capture_logs

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


def test_a_file_that_breaks_or_is_away_for_a_while_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    write(file, alice={"not_after": at(3600)})
    keys = ApiKeys(file)
    whole = file.read_text()
    assert keys.readable()

    with capture_logs() as logged:
        for broken in (whole[:20], "", None):
            if broken is None:
                file.unlink()
            else:
                file.write_text(broken)
            assert keys.of_key("alice").user == "alice"
            assert keys.first_end() < math.inf
            assert not keys.readable()
        write(file, bob={})
        assert keys.of_key("bob").user == "bob" and keys.readable()

    assert [(one["log_level"], one["event"]) for one in logged] == [
        ("error", "the keys file cannot be read; the keys that it held before count on"),
        ("info", "the keys file can be read again"),
    ]
    with pytest.raises(UnknownKey):
        keys.of_key("alice")


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '{"keys": [{"user": "alice"}]}', '{"keys": [{"sha256": "a", "user": "b", "not_after": "soon"}]}'],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(ValueError, match="keys: should be"):
        ApiKeys(tmp_path / "keys")
