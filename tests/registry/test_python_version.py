"""A pickle's Python, read from its opcodes: pickles of every Python since 3.6, each by its oldest and newest dill."""

from __future__ import annotations

import base64
import json
import pickle
import pickletools
from pathlib import Path

import dill
import pytest

from registry.options import Most
from registry.python_version import read_blob, versions_named
from registry.refuse import Refusal
from registry.validate import Accepts, _runtime

PICKLES = {
    name: base64.b64decode(text)
    for name, text in json.loads((Path(__file__).parent / "pickles.json").read_text()).items()
}
"""Made by make_pickles.py; names are <Python>-<dill>-<function>."""

TELLS_ALL = {"3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"}


@pytest.mark.parametrize("name", PICKLES)
def test_its_maker_is_among_the_candidates(name: str) -> None:
    facts = read_blob(PICKLES[name])

    assert name.split("-")[0] in facts.candidates
    assert facts.by_reference is None


@pytest.mark.parametrize(
    "name", [name for name in PICKLES if name.endswith("rich") and name.split("-")[0] in TELLS_ALL]
)
def test_a_function_that_uses_the_language_tells_its_version(name: str) -> None:
    assert read_blob(PICKLES[name]).candidates == (name.split("-")[0],)


def test_no_pickle_fits_a_version_of_another_shape() -> None:
    shapes = [{"3.6", "3.7"}, {"3.8", "3.9", "3.10"}, {"3.11", "3.12"}, {"3.13"}]
    for name, blob in PICKLES.items():
        candidates = set(read_blob(blob).candidates)
        assert any(candidates <= shape for shape in shapes), (name, candidates)


def test_a_pickle_by_reference_names_its_module() -> None:
    facts = read_blob(dill.dumps(json.dumps))

    assert (facts.candidates, facts.by_reference) == ((), "json")


@pytest.mark.parametrize(
    "blob",
    [b"", b"abc", b"\x80\x04", b"\x80\x04.", b"\x80\x04K\x01", b"\x80\x04\x85.", b"\x80\x04h\x07.", b"\x80\x04]\x94e."],
)
def test_what_is_no_pickle_is_said_with_its_place(blob: bytes) -> None:
    with pytest.raises(ValueError, match="at byte"):
        read_blob(blob)


def test_every_cut_of_a_pickle_is_refused_or_read_but_never_breaks() -> None:
    blob = PICKLES["3.11-0.4.1-rich"]
    for end in range(0, len(blob), 7):
        with pytest.raises(ValueError):
            read_blob(blob[:end])


def test_nothing_in_it_is_ever_called(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path(tmp_path / "sprung").touch, ()  # type: ignore[return-value]

    read_blob(pickle.dumps(Trap()))

    assert not (tmp_path / "sprung").exists()


def test_a_pickle_of_endless_opcodes_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 3000000 opcodes"):
        read_blob(b"\x80\x04" + b"N0" * 1_600_000 + b"N.")


def test_every_opcode_of_pickle_is_understood() -> None:
    # the last ones are protocol 5's, which dill uses from 3.8 on
    assert {opcode.name for opcode in pickletools.opcodes} >= {"BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"}
    data = {"a": [1, 2.5, None, True, b"x", "y", (1,), {2}, frozenset((3,)), 1 << 70, -3], "b": bytearray(b"z")}
    for protocol in range(6):
        read_blob(pickle.dumps(data, protocol=protocol))


@pytest.mark.parametrize(
    "text, minor", [("3.11.7", "3.11"), ("3.6", "3.6"), ("3.14.0rc2", "3.14"), ("3.13.0+", "3.13")]
)
def test_a_version_is_told_by_its_minor(text: str, minor: str) -> None:
    assert versions_named(text) == minor


def accepts(*runtimes: str, ambiguous: str = "oldest") -> Accepts:
    return Accepts(runtimes, ambiguous, "*", 1 << 20, Most())


AMBIGUOUS = read_blob(PICKLES["3.9-0.4.1-simple"])


def test_an_ambiguous_pickle_goes_to_the_oldest_that_is_served_with_a_note() -> None:
    runtime, notes = _runtime(AMBIGUOUS, "", accepts("py3.11", "py3.10", "py3.9"))

    assert runtime == "py3.9"
    assert notes == ["the pickle fits Python 3.8, 3.9, 3.10; it will run on 3.9"]


def test_an_ambiguous_pickle_is_refused_where_the_setting_says_so() -> None:
    with pytest.raises(Refusal, match=r"fits Python 3\.8, 3\.9, 3\.10; register with a newer"):
        _runtime(AMBIGUOUS, "", accepts("py3.9", ambiguous="refuse"))


def test_a_pickle_of_a_python_that_is_not_served_is_refused_by_naming_what_there_is() -> None:
    with pytest.raises(Refusal, match=r"Python 3\.8 or 3\.9 or 3\.10, which is not served here; there are 3\.7, 3\.11"):
        _runtime(AMBIGUOUS, "", accepts("py3.11", "py3.7"))
    with pytest.raises(Refusal, match=r"Python 3\.9 is not served here; handlers can be registered from 3\.7, 3\.11"):
        _runtime(AMBIGUOUS, "3.9.18", accepts("py3.11", "py3.7"))


def test_what_the_client_says_settles_it() -> None:
    assert _runtime(AMBIGUOUS, "3.10.13", accepts("py3.8", "py3.10")) == ("py3.10", [])
