"""Names: collections, stream names and UUIDs, the same whenever the same recording comes in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ctingress.name import collection, stream_names, stream_uuid, unique_names
from ctingress.recording import Rate


def recorder(station: str = "North", device: str = "Relay", hz: str | None = "4800") -> Any:
    """The part of a config that names need."""
    return SimpleNamespace(station=station, device=device, rates=() if hz is None else (Rate(hz, 10),), channels=())


def channels(*names: str, kind: str = "analog") -> Any:
    return [SimpleNamespace(name=name, index=number, kind=kind) for number, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    "config, prefix, wanted",
    [
        (recorder(), "", "comtrade/North/Relay/4800Hz"),
        (recorder(hz="4800.000"), "", "comtrade/North/Relay/4800Hz"),
        (recorder(hz="1.5E3"), "", "comtrade/North/Relay/1500Hz"),
        (recorder(hz="0"), "", "comtrade/North/Relay/irregular"),
        (recorder(hz=None), "", "comtrade/North/Relay/irregular"),
        (recorder(), "/plant 7/east/", "plant 7/east/comtrade/North/Relay/4800Hz"),
        (recorder("a/b", "50%"), "", "comtrade/a%2Fb/50%25/4800Hz"),
        (recorder(" ", ""), "", "comtrade/unnamed/unnamed/4800Hz"),
        (recorder("Süd\x00Ost"), "", "comtrade/Süd Ost/Relay/4800Hz"),
    ],
)
def test_a_collection_says_station_device_and_rate(config: Any, prefix: str, wanted: str) -> None:
    assert collection(config, prefix) == wanted


def test_a_long_collection_keeps_to_its_limit_and_stays_its_own() -> None:
    one, other = (collection(recorder("S" * 300 + end, "D" * 300), "p" * 300) for end in "12")

    assert len(one) <= 256 and len(other) <= 256
    assert one != other


def test_a_name_that_repeats_gets_its_channels_index() -> None:
    assert unique_names(channels("Off", "IA", "Off")) == ("Off 1", "IA", "Off 3")


def test_an_indexed_name_that_another_channel_has_already_is_made_longer() -> None:
    names = unique_names(channels("Off", "Off 1", "Off"))

    assert len(set(names)) == 3 and names[1] == "Off 1"


def test_any_number_of_channels_of_one_name_and_index_have_names_of_their_own() -> None:
    off: Any = [SimpleNamespace(name="Off", index=0, kind="status") for _ in range(5)]
    names = unique_names(off)

    assert names[:3] == ("Off 0", "Off status 0", "Off status 0 of Off"), "as they have been named before"
    assert len(set(names)) == 5
    assert unique_names(off) == names
    assert len(set(unique_names([*off, *channels(names[3], names[4])]))) == 7


def test_the_same_name_of_an_analog_and_a_status_channel_stays_apart() -> None:
    both = [*channels("X"), *channels("X", kind="status")]

    assert len(set(unique_names(both))) == 2


def test_a_channel_without_a_name_gets_one() -> None:
    assert unique_names(channels("", "IA")) == ("analog 1", "IA")


def test_a_uuid_depends_on_collection_and_name_alone() -> None:
    assert stream_uuid("c", "IA") == stream_uuid("c", "IA") != stream_uuid("c", "IB")
    assert stream_uuid("c/d", "e") != stream_uuid("c", "d/e")
    assert stream_uuid("c", "IA").version == 5


def test_streams_come_in_the_order_of_the_channels() -> None:
    config = recorder()
    config.channels = channels("IB", "IA")

    assert [(s.collection, s.name) for s in stream_names(config)] == [
        ("comtrade/North/Relay/4800Hz", "IB"),
        ("comtrade/North/Relay/4800Hz", "IA"),
    ]
