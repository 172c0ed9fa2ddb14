"""The file of keys as the development server reads it: as the other servers do."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from callers import ApiKeys, UnknownKey
from devstack.keys import Holder, KeyFile, make_keys


def entry(key: str, **more: Any) -> dict[str, Any]:
    """Of the keys file."""
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "user": "alice", "roles": [], **more}


def test_keys_that_were_made_are_known_and_others_are_not(tmp_path: Path) -> None:
    keys = make_keys({"alice": (), "bob": ("admin",)}, tmp_path / "keys.json")
    known = KeyFile(tmp_path / "keys.json")

    assert [known.holder_of(keys[user]) for user in ("alice", "bob")] == [Holder("alice"), Holder("bob")]
    assert known.holder_of("another") is None


@pytest.mark.parametrize(("end", "good"), [(-1, False), (3600, True)])
def test_a_key_is_good_until_its_end_as_everywhere(tmp_path: Path, end: float, good: bool) -> None:
    file = tmp_path / "keys.json"
    at = (datetime.now(UTC) + timedelta(seconds=end)).isoformat()
    file.write_text(json.dumps({"keys": [entry("key", not_after=at)]}))

    assert KeyFile(file).holder_of("key") == (Holder("alice") if good else None)
    if good:
        assert ApiKeys(file).of_key("key").user == "alice"
    else:
        with pytest.raises(UnknownKey):
            ApiKeys(file).of_key("key")


def test_a_digest_may_be_in_capitals_and_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    capital = entry("key")["sha256"].upper()
    file.write_text(json.dumps({"keys": [entry("key", sha256=capital, collections=["north/"])]}))
    known = KeyFile(file)

    assert known.holder_of("key") == Holder("alice", ("north",))
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"keys": [entry("other")]}))
    fresh.replace(file)
    assert known.holder_of("key") is None
    assert known.holder_of("other") == Holder("alice")
