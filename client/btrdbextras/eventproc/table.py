"""Lists that a notebook shows as a table."""

import datetime
import html
from typing import Any, Iterable, List, Tuple

SHOWN = 200
_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap"


class Table(List[Any]):
    """A list of namedtuples, as any other; in a notebook it is shown as a table of at most SHOWN rows.

    columns: (title, name of an attribute) of what is shown.
    """

    def __init__(self, rows: Iterable[Any] = (), columns: Iterable[Tuple[str, str]] = ()) -> None:
        super().__init__(rows)
        self.columns = list(columns)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Table(found, self.columns) if isinstance(index, slice) else found

    def _repr_html_(self) -> str:
        if not self:
            return "<i>none</i>"
        head = "".join('<th style="%s">%s</th>' % (_CELL, html.escape(title)) for title, _ in self.columns)
        rows = [
            "<tr>%s</tr>" % "".join('<td style="%s">%s</td>' % (_CELL, html.escape(cell)) for cell in row)
            for row in self.cells(self[:SHOWN])
        ]
        more = "<div><i>and %d more</i></div>" % (len(self) - SHOWN) if len(self) > SHOWN else ""
        return "<table><thead><tr>%s</tr></thead><tbody>%s</tbody></table>%s" % (head, "".join(rows), more)

    def cells(self, rows: Iterable[Any]) -> List[List[str]]:
        """What is shown of each row, as text."""
        return [[shown(getattr(row, name)) for _, name in self.columns] for row in rows]


def shown(value: Any) -> str:
    """A value as text for people: times to the second in UTC, lists with commas, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(one) for one in value)
    if isinstance(value, float):
        return "%.1f" % value
    return str(value)


def size(count: int) -> str:
    """Bytes for people: '1.5 MiB'."""
    number = float(count)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return "%d B" % count if unit == "B" else "%.1f %s" % (number, unit)
        number /= 1024
    return "%.1f GiB" % number


def as_text(head: str, parts: Iterable[Tuple[str, str]]) -> str:
    """A head line, then (title, text) of each part that has one."""
    lines = [head]
    for title, text in parts:
        if text:
            lines += [title + ":"] + ["    " + line for line in text.splitlines()]
    return "\n".join(lines)


def as_html(head: str, parts: Iterable[Tuple[str, str]]) -> str:
    """The same for a notebook."""
    found = ["<b>%s</b>" % html.escape(head)]
    for title, text in parts:
        if text:
            found.append("<div><i>%s</i><pre>%s</pre></div>" % (html.escape(title), html.escape(text)))
    return "".join(found)
