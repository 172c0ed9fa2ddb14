"""Owners as labels."""

import pytest

from telemetry import bounded


def test_the_first_owners_keep_their_names_and_the_rest_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_owners", set())
    names = [f"owner{number}" for number in range(bounded.OWNERS + 10)]

    labels = [bounded.owner_label(name) for name in names]

    assert labels == names[: bounded.OWNERS] + [bounded.OTHER] * 10
    assert bounded.owner_label("owner0") == "owner0"
