"""A function tried at the desk: called as the platform calls it, with what does not travel already missing."""

from __future__ import annotations

import inspect
import json
import os
import site
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from btrdbextras import Connection
from btrdbextras.eventproc import desk, sample_event, try_handler, trying
from examples import handlers
from executor.inside import call
from schemas.events import read_event

LIMIT = 3
DOCUMENTED = ["DataSets", "File", "RequestID", "SubmittedAt", "btrdb"]


def test_the_sample_is_an_event_that_the_contract_takes() -> None:
    read_event("ctingress.on_complete", json.dumps(sample_event()).encode())


def test_the_sample_of_an_unknown_hook_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no sample of hook 'nothing'; there is of ctingress.on_complete"):
        sample_event("nothing")


def test_an_example_reads_the_samples_fault_without_a_platform() -> None:
    tried = try_handler(handlers.fault_report)

    assert tried.ok
    assert "fault on IA (phase A)" in tried.text
    assert tried.warnings == []


def test_kwargs_alone_get_the_documented_names() -> None:
    def names(**kwargs: Any) -> str:
        return " ".join(sorted(kwargs))

    assert try_handler(names).text.split() == sorted(DOCUMENTED)


def wrapped(function: Any) -> Any:
    import functools

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def _of_each_kind() -> list[Any]:
    def named(DataSets: Any, Tags: Any) -> None: ...
    def defaulted(File: str, mine: int = 3) -> None: ...
    def only_by_keyword(*, Recordings: Any, **kwargs: Any) -> None: ...
    def by_position(File: Any, /) -> None: ...
    def unknown(nothing: Any) -> None: ...

    return [named, defaulted, only_by_keyword, by_position, unknown, wrapped(named), wrapped(only_by_keyword), print]


@pytest.mark.parametrize("handler", _of_each_kind(), ids=lambda one: one.__name__)
def test_arguments_are_chosen_as_the_executor_chooses_them(handler: Any) -> None:
    given = {**sample_event(), "btrdb": None}

    def chosen(choose: Any, refused: type[Exception]) -> object:
        try:
            return choose(handler, given, DOCUMENTED)
        except refused as error:
            return str(error)

    assert chosen(desk.arguments, desk.Refused) == chosen(call.arguments, call.Refused)


def test_what_was_printed_raised_and_warned_of_is_told() -> None:
    def fails(File: str) -> None:
        print("looking at", File)
        raise KeyError("no such phase")

    tried = try_handler(fails)

    assert not tried.ok
    assert tried.error == "KeyError: 'no such phase'"
    assert 'raise KeyError("no such phase")' in tried.traceback
    assert "desk.py" not in tried.traceback
    assert tried.log == "looking at sample.zip\n"
    assert "FAILED" in repr(tried)
    assert "looking at sample.zip" in tried._repr_html_()


def test_a_name_that_does_not_travel_is_missing_at_the_desk_already() -> None:
    def late() -> Any:
        return not_yet_defined  # type: ignore[name-defined]  # noqa: F821

    tried = try_handler(late)

    assert tried.error == "NameError: name 'not_yet_defined' is not defined"
    assert tried.warnings == ["'late' uses 'not_yet_defined', not defined so far: define it above the function"]


def test_a_value_of_the_notebook_is_warned_of() -> None:
    def uses() -> int:
        return LIMIT

    tried = try_handler(uses)

    assert tried.text == "3"
    assert tried.warnings == ["goes along as it is now, later changes are not seen: LIMIT"]


def test_a_module_that_not_every_runtime_has_is_warned_of() -> None:
    def uses() -> str:
        import hypothesis

        return str(hypothesis.__name__)

    (warning,) = try_handler(uses).warnings
    assert "not in every runtime: hypothesis" in warning


def test_files_go_to_an_empty_folder_and_uploads_are_listed() -> None:
    here = Path.cwd()

    def writes() -> Any:
        from pathlib import Path

        before = list(Path().iterdir())
        Path("a.txt").write_text("hello")
        ep.upload_file("a.txt", "named.txt")  # type: ignore[name-defined]  # noqa: F821
        return before

    tried = try_handler(writes)

    assert tried.text == "[]"
    assert tried.uploads == [("named.txt", 5, b"hello")]
    assert not (here / "a.txt").exists()


def test_variables_of_the_notebooks_shell_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "here")

    def looks() -> Any:
        import os

        return os.environ.get("MY_SECRET")

    assert try_handler(looks).text == ""


def test_packages_of_the_user_are_found_and_none_stands_before_the_standard_library() -> None:
    def looks() -> str:
        import os
        import site
        import sys
        from pathlib import Path

        places = [Path(path or ".").resolve() for path in sys.path]
        library = places.index(Path(os.__file__).resolve().parent)
        return f"{site.getuserbase()} {[str(one) for one in places[:library] if one != Path.cwd() and one.is_dir()]}"

    assert try_handler(looks).text == f"{site.getuserbase()} []"


def test_another_python_than_the_platforms_is_warned_of(
    platform: Any, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        pass

    asks = {"BTRDB_ENDPOINTS": platform.endpoint, "BTRDB_API_KEY": conn.apikey}
    here = "py{}.{}".format(*sys.version_info[:2])
    platform.runtimes = ["py3.7", "py3.8"]
    (warning,) = try_handler(nothing, sample_event(), btrdb=conn).warnings
    assert warning.startswith("another Python: this is 3.") and "the platform has py3.7, py3.8" in warning
    platform.runtimes = ["py3.7", here]
    assert trying._another_python(asks) == []
    platform.refuse = (grpc.StatusCode.UNIMPLEMENTED, "no event processing")
    assert trying._another_python(asks) == []
    monkeypatch.setattr(trying, "NEWEST", (3, 10))
    (warning,) = trying._another_python({})
    assert "platforms have some of 3.6 to 3.10" in warning


def test_a_process_that_ends_and_one_that_never_does_are_told() -> None:
    def ends() -> None:
        import os

        os._exit(3)

    def hangs() -> None:
        import threading

        threading.Event().wait()

    assert "ended with status 3" in try_handler(ends).error
    assert "ended after 1 s" in try_handler(hangs, timeout=1).error


def test_an_own_stand_in_for_btrdb_travels_along() -> None:
    class Mine:
        def info(self) -> str:
            return f"mine {LIMIT}"

    def asks(btrdb: Any) -> Any:
        return btrdb.info()

    assert try_handler(asks, btrdb=Mine()).text == "mine 3"


def test_an_unreachable_btrdb_is_told_and_hangs_nobody() -> None:
    def asks(btrdb: Any) -> Any:
        return btrdb.info()

    tried = try_handler(asks, btrdb=Connection("127.0.0.1:9", "key"), timeout=60)

    assert not tried.ok


def test_an_event_is_taken_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text(json.dumps({**sample_event(), "File": "mine.zip"}))

    class Mine:
        pass

    def name(File: str) -> str:
        return File

    assert try_handler(name, os.fspath(tmp_path / "event.json"), btrdb=Mine()).text == "mine.zip"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("fault.cff", "neither an archive .* nor a .json file of an event"),
        ("no_such.zip", "no_such.zip' cannot be read as a zip archive: .*No such file"),
        ({"File": "a"}, "lacks DataSets, RequestID, SubmittedAt"),
        (3, "should be a dict as sample_event"),
        ({**sample_event(), "Tags": {1}}, "what JSON can"),
    ],
)
def test_what_is_no_event_is_refused(given: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        try_handler(lambda: None, given)


def test_help_tells_what_it_takes() -> None:
    assert "sample_event" in (inspect.getdoc(try_handler) or "")
