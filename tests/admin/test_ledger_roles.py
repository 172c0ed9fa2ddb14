"""eventproc-admin ledger-roles: the rights at the ledger as SQL and as data. Given to a real server: tests/ledger/test_roles.py."""

import json

import pytest

from ledger import Ledger
from ledger.roles import roles
from tests.admin.conftest import call


def test_each_station_gets_its_role_its_rights_and_no_others_as_sql() -> None:
    lines = call("ledger-roles", "--role", "{station}@example", "--schema", "books").splitlines()

    assert all(line.endswith(";") for line in lines)
    assert 'GRANT UPDATE (removed_at_ms) ON "books".file TO "notifier@example";' in lines
    for station, rights in roles().items():
        mine = [line for line in lines if line.endswith(f'"{station}@example";')]
        assert sum(line.startswith("REVOKE ALL ON ") for line in mine) == 2
        assert sum("GRANT" in line and "SEQUENCE" not in line and "SCHEMA" not in line for line in mine) == len(rights)


def test_one_stations_rights_are_told_as_they_are_listed() -> None:
    assert json.loads(call("ledger-roles", "--station", "ctingress", "--json")) == {
        "ctingress": {"archive": ["SELECT", "INSERT", "UPDATE", "DELETE"], "event": ["SELECT (hook, request_id)"]}
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--station", "executor"), "there is no station 'executor' at the ledger; there are registry, dispatcher"),
        (("--role", "eventproc"), "'eventproc' should be the name of a role with {station} in it"),
        (("--role", 'a"; DROP ROLE {station}'), "should be the name of a role with {station} in it"),
        (("--apply", "--station", "registry"), "--apply gives all stations theirs; leave --station out"),
    ],
)
def test_what_is_asked_for_wrongly_is_named_with_what_would_be_right(arguments: tuple[str, ...], told: str) -> None:
    assert told in call("ledger-roles", *arguments, code=2)


def test_a_ledger_in_a_file_has_no_roles(ledger: Ledger) -> None:
    for command in (("ledger-roles", "--apply"), ("migrate", "--roles", "eventproc_{station}")):
        assert "only PostgreSQL has roles" in call(*command, code=2)
