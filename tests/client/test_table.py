"""Lists in a notebook: shown as tables, and lists of namedtuples as ever."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

from btrdbextras.eventproc import list_handlers
from btrdbextras.eventproc.table import SHOWN, Table
from schemas.generated import eventprocapi_pb2 as api

HOOK = "ctingress.on_complete"


def cells(table: Any) -> list[str]:
    return re.findall(r"<td[^>]*>(.*?)</td>", table._repr_html_(), re.DOTALL)


def handler(**changed: Any) -> api.Handler:
    fields = {"id": 7, "hook": HOOK, "name": "peaks", "tag": ["north", "line-4"], "created_by": "alice", **changed}
    return api.Handler(**fields)


def test_handlers_show_as_a_table(conn: Any, platform: Any) -> None:
    platform.handlers = [handler(runtime="py3.11", updated_at=1_700_000_000_000_000_000)]

    shown = cells(list_handlers(conn))

    assert shown[:7] == ["7", "peaks", HOOK, "0", "north, line-4", "py3.11", "alice"]
    assert "2023-11-14 22:13:20" in shown


def test_markup_in_a_name_stays_text(conn: Any, platform: Any) -> None:
    platform.handlers = [handler(name="<script>alert('x')</script>", tag=["a&b", '"<i>']), handler(name="<b>")]

    html = list_handlers(conn)._repr_html_()  # type: ignore[attr-defined]

    assert "<script" not in html and "<i>" not in html and "<b>" not in html
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in html
    assert "a&amp;b" in html


def test_a_list_of_handlers_is_a_list_of_namedtuples(conn: Any, platform: Any) -> None:
    platform.handlers = [handler(id=number, name=f"n{number}") for number in range(3)]

    found = list_handlers(conn)

    assert isinstance(found, list)
    assert found == list(found) and found[0] == tuple(found[0])
    assert all(isinstance(one, tuple) and len(one) == 11 for one in found)
    id_, name, *_ = found[1]
    assert (id_, name) == (1, "n1")
    assert [one.name for one in sorted(found, reverse=True)] == ["n2", "n1", "n0"]
    assert repr(found).startswith("[Handler(id=0, name='n0', hook='ctingress.on_complete', version=0,")
    assert found[0]._replace(name="other").name == "other"
    assert set(found[0]._asdict()) == set(found[0]._fields)


def test_a_part_of_a_table_and_a_copy_show_as_tables_too(conn: Any, platform: Any) -> None:
    platform.handlers = [handler(id=number) for number in range(3)]
    found = list_handlers(conn)

    assert cells(found[1:2])[0] == "1"
    for same in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert same == found
        assert cells(same) == cells(found)


def test_what_else_is_known_of_a_handler_is_beside_its_fields(conn: Any, platform: Any) -> None:
    options = api.Options(timeout_s=60, memory_bytes=1 << 30, retries=2, notify="failures", description="of line 4")
    platform.handlers = [
        handler(paused=True, pause_reason="BTrDB refuses the API key", options=options, requirements=["pyarrow"])
    ]

    (found,) = list_handlers(conn)

    assert found.paused
    assert found.options["timeout"] == 60
    assert found.options["memory"] == 1 << 30
    assert found.options["description"] == "of line 4"
    assert found.requirements == ["pyarrow"]
    assert "paused: BTrDB refuses the API key" in cells([found] and list_handlers(conn))


def test_nothing_shows_as_nothing_and_many_as_the_first_of_them() -> None:
    assert Table([], [("id", "real")])._repr_html_() == "<i>none</i>"
    many = Table(range(SHOWN + 5), [("number", "real")])
    assert len(cells(many)) == SHOWN
    assert "and 5 more" in many._repr_html_()
