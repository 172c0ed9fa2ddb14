"""Connection: where it takes its values from, and what it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from btrdbextras import Connection


def test_the_environment_is_read_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTRDB_ENDPOINTS", "btrdb.example.com:4411")
    monkeypatch.setenv("BTRDB_API_KEY", "KEY")

    conn = Connection()

    assert (conn.endpoint, conn.apikey) == ("btrdb.example.com:4411", "KEY")


def test_arguments_stand_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTRDB_ENDPOINTS", "btrdb.example.com:4411")
    monkeypatch.setenv("BTRDB_API_KEY", "KEY")

    conn = Connection("other.example.com:4412", apikey="OTHER")

    assert (conn.endpoint, conn.apikey) == ("other.example.com:4412", "OTHER")


@pytest.mark.parametrize(
    ("endpoint", "dialled"),
    [
        ("btrdb.example.com", "btrdb.example.com:4411"),
        (" btrdb.example.com:1 ", "btrdb.example.com:1"),
        ("[::1]:4411", "[::1]:4411"),
    ],
)
def test_the_port_is_4411_unless_it_is_said(endpoint: Any, dialled: Any) -> None:
    assert Connection(endpoint, "KEY").endpoint == dialled


@pytest.mark.parametrize("endpoint", ["", "host:", "host:x", "host:0", "host:65536", "a b:1", "https://host:4411"])
def test_an_endpoint_that_is_not_host_and_port_is_refused(endpoint: Any) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Connection(endpoint, "KEY")


@pytest.mark.parametrize("key", ["", "two words", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="API key"):
        Connection("host:4411", key)


def test_without_an_endpoint_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTRDB_ENDPOINTS", raising=False)

    with pytest.raises(ValueError, match="BTRDB_ENDPOINTS"):
        Connection(apikey="KEY")


def test_without_a_key_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTRDB_API_KEY", raising=False)

    with pytest.raises(ValueError, match="BTRDB_API_KEY"):
        Connection("host:4411")


def test_the_key_is_neither_shown_nor_pickled() -> None:
    conn = Connection("host:4411", "SECRET")

    assert "SECRET" not in repr(conn)
    assert b"SECRET" not in pickle.dumps(conn)
