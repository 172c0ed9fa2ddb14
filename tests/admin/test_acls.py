"""eventproc-admin kafka-acls: the rights as commands and as data."""

import json

from schemas.acls import acls
from tests.admin.conftest import call


def test_each_right_is_one_command_for_kafkas_own_tool() -> None:
    lines = call("kafka-acls", "--principal", "User:CN={station}").splitlines()

    assert len(lines) == sum(len(rights) for rights in acls().values())
    assert (
        "kafka-acls.sh --add --allow-principal 'User:CN=executor' --operation Read --topic eventproc.tasks. "
        "--resource-pattern-type prefixed"
    ) in lines


def test_one_stations_rights_are_told_as_a_kafka_user_has_them() -> None:
    told = json.loads(call("kafka-acls", "--station", "notifier", "--json"))

    assert list(told) == ["notifier"]
    assert told["notifier"][0]["resource"] == {"type": "topic", "name": "eventproc.results", "patternType": "literal"}
    assert told["notifier"][0]["operations"] == ["Read"]


def test_a_station_that_is_none_is_named_with_those_that_are() -> None:
    assert "there are ctingress, dispatcher, executor, notifier, admin, topics" in call(
        "kafka-acls", "--station", "registry", code=2
    )
