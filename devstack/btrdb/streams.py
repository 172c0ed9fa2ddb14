"""Streams as BTrDB describes them: collection, the four tags, annotations; look-up and the SQL view of them."""

from __future__ import annotations

import functools
import json
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from devstack.btrdb import refusals
from devstack.btrdb.refusals import Refusal, no_such_stream
from devstack.btrdb.store import FIRST_VERSION, Store
from devstack.keys import Holder

TAGS = ("name", "unit", "ingress", "distiller")
LONGEST = 256

Pairs = Mapping[str, str | None]


@dataclass(frozen=True)
class Description:
    """A stream's metadata. tags: all four; annotations: value None where the key stands alone."""

    uuid: str
    collection: str
    tags: dict[str, str]
    annotations: dict[str, str | None]
    property_version: int


_COLUMNS = "uuid, collection, name, unit, ingress, distiller, annotations, property_version"


def _description(row: tuple[str, str, str, str, str, str, str, int]) -> Description:
    uuid, collection, *tags, annotations, version = row
    return Description(
        uuid, collection, dict(zip(TAGS, map(str, tags), strict=True)), json.loads(str(annotations)), int(version)
    )


def create(store: Store, uuid: str, collection: str, tags: Pairs, annotations: Pairs) -> None:
    """Makes a stream; raises Refusal 407, 408, 409, 417, 418, 429."""
    _check_collection(collection)
    full = {**dict.fromkeys(TAGS, ""), **_checked(tags)}
    with store.change() as sql:
        if sql.execute("SELECT 1 FROM streams WHERE uuid = ?", (uuid,)).fetchone():
            raise Refusal(refusals.STREAM_EXISTS, "a stream already exists with that uuid")
        if sql.execute("SELECT 1 FROM obliterated WHERE uuid = ?", (uuid,)).fetchone():
            raise Refusal(refusals.RECYCLED_UUID, "uuid of a stream that was obliterated; it cannot be used again")
        values = (uuid, collection, *(full[tag] for tag in TAGS), 1, json.dumps(dict(annotations)), FIRST_VERSION)
        try:
            sql.execute(f"INSERT INTO streams VALUES ({', '.join('?' * len(values))})", values)
        except sqlite3.IntegrityError:
            raise _ambiguous() from None


def describe(store: Store, uuid: str) -> Description:
    """The stream's metadata; raises Refusal 404."""
    with store.lock:
        row = store.sql.execute(f"SELECT {_COLUMNS} FROM streams WHERE uuid = ?", (uuid,)).fetchone()
    if row is None:
        raise no_such_stream()
    return _description(row)


def set_annotations(store: Store, uuid: str, expected: int, changes: Pairs, removals: list[str]) -> None:
    """Changes and removes annotations; expected: the property version that the caller saw, 0 for any. Raises 404, 423."""
    with store.change():
        seen = describe(store, uuid)
        kept = {key: value for key, value in seen.annotations.items() if key not in removals}
        _update(store, seen, expected, {"annotations": json.dumps({**kept, **changes})})


def set_tags(store: Store, uuid: str, expected: int, tags: Pairs, collection: str, removals: list[str]) -> None:
    """Changes tags and, when not empty, the collection. Raises Refusal 404, 407, 408, 409, 418, 423."""
    fields = {**_checked(dict.fromkeys(removals, "")), **_checked(tags)}
    if collection:
        _check_collection(collection)
        fields["collection"] = collection
    with store.change():
        _update(store, describe(store, uuid), expected, fields)


def _update(store: Store, seen: Description, expected: int, fields: Mapping[str, str]) -> None:
    if expected and expected != seen.property_version:
        raise Refusal(
            refusals.ANNOTATION_VERSION_MISMATCH,
            f"property version is {seen.property_version}, not {expected}: the metadata has changed; read it again",
        )
    fresh = {**fields, "property_version": seen.property_version + 1}
    try:
        store.sql.execute(
            f"UPDATE streams SET {', '.join(f'{name} = ?' for name in fresh)} WHERE uuid = ?",
            (*fresh.values(), seen.uuid),
        )
    except sqlite3.IntegrityError:
        raise _ambiguous() from None


def collections(store: Store, prefix: str, holder: Holder) -> list[str]:
    """Names of collections that start with prefix and that the holder may see, sorted."""
    with store.lock:
        rows = store.sql.execute(
            "SELECT DISTINCT collection FROM streams WHERE substr(collection, 1, ?) = ? ORDER BY 1",
            (len(prefix), prefix),
        )
        return [row[0] for row in rows if holder.may(row[0])]


def look_up(
    store: Store, collection: str, is_prefix: bool, tags: Pairs, annotations: Pairs, holder: Holder
) -> list[Description]:
    """Streams whose tags and annotations are as given (None: the key is enough), in a collection or below a prefix.

    Those that the holder may not see are left out.
    """
    where, values = ["1"], list[str | int]()
    if is_prefix:
        where.append("substr(collection, 1, ?) = ?")
        values += [len(collection), collection]
    elif collection:
        where.append("collection = ?")
        values.append(collection)
    for key, wanted in _known_keys(tags).items():
        if wanted is not None:
            where.append(f"{key} = ?")
            values.append(wanted)
    with store.lock:
        rows = store.sql.execute(
            f"SELECT {_COLUMNS} FROM streams WHERE {' AND '.join(where)} ORDER BY collection, name", values
        ).fetchall()
    found = [stream for stream in map(_description, rows) if holder.may(stream.collection)]
    return [stream for stream in found if _has(stream.annotations, annotations)]


def _has(held: Pairs, wanted: Pairs) -> bool:
    return all(key in held and (value is None or held[key] == value) for key, value in wanted.items())


def usage(store: Store, prefix: str, holder: Holder) -> tuple[dict[str, int], dict[str, int]]:
    """How many streams below prefix carry each tag (not empty) and each annotation."""
    tags: dict[str, int] = {}
    annotations: dict[str, int] = {}
    for stream in look_up(store, prefix, True, {}, {}, holder):
        for key, value in stream.tags.items():
            if value:
                tags[key] = tags.get(key, 0) + 1
        for key in stream.annotations:
            annotations[key] = annotations.get(key, 0) + 1
    return tags, annotations


_VIEW = "uuid, collection, name, unit, ingress, distiller, property_version, annotations"
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_LITERAL = re.compile(r"('(?:[^']|'')*')")


def query(store: Store, statement: str, params: list[str], holder: Holder) -> Iterator[bytes]:
    """Rows of a SELECT over table streams, as far as the holder may see them, each as JSON.

    PostgreSQL's $1 and ::type are understood. Raises Refusal 441.
    """
    parts = _LITERAL.split(statement)
    text = "".join(part if number % 2 else _translated(part) for number, part in enumerate(parts))
    # temp.streams stands before the table of that name; it reads the table by a view whose name no statement can know
    visible = f"visible_{secrets.token_hex(16)}"
    reader = sqlite3.connect(f"file:{store.file}?mode=ro", uri=True)
    try:
        reader.create_function("may_see", 1, holder.may, deterministic=True)
        reader.execute(f"CREATE TEMP VIEW {visible} AS SELECT {_VIEW} FROM main.streams WHERE may_see(collection)")
        reader.execute(f"CREATE TEMP VIEW streams AS SELECT {_VIEW} FROM {visible}")
        reader.execute("PRAGMA case_sensitive_like = ON")  # as PostgreSQL's
        reader.execute("SELECT 1 FROM json_each('[]')")  # its first use makes a table, which a query may not
        reader.set_authorizer(functools.partial(_authorize, visible))
        cursor = reader.execute(text, params)
        names = [re.sub(r"\(.*", "", column[0]).lower() for column in cursor.description or ()]
        for row in cursor:
            plain = dict(zip(names, row, strict=True))
            if str(plain.get("annotations")).startswith("{"):  # the column itself, not one of its keys
                plain["annotations"] = json.loads(plain["annotations"])
            yield json.dumps(plain).encode()
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise Refusal(refusals.BAD_SQL_VALUE, f"the query cannot be run: {error}") from error
    finally:
        reader.close()


def _translated(text: str) -> str:
    """PostgreSQL without string literals -> SQLite."""
    text = re.sub(r"\$(\d+)", r"?\1", re.sub(r"::\w+(\([^)]*\))?", "", text))
    if "skeys(annotations)" in text:  # the client's list_unique_annotations: hstore's keys, a row each
        text = text.replace("skeys(annotations)", "each.key")
        text = text.replace("from streams", "from streams, json_each(streams.annotations) AS each")
    return text


def _authorize(
    visible: str, action: int, table: str | None, _column: str | None, database: str | None, within: str | None
) -> int:
    seen = (
        action != sqlite3.SQLITE_READ
        or table == "json_each"
        or (database == "temp" and table in ("streams", visible))
        or (database == "main" and table == "streams" and within == visible)
    )
    return sqlite3.SQLITE_OK if action in _ALLOWED and seen else sqlite3.SQLITE_DENY


def _known_keys(tags: Pairs) -> Pairs:
    for key in tags:
        if key not in TAGS:
            raise Refusal(refusals.INVALID_TAG_KEY, f"tag {key!r} is not known; there are {', '.join(TAGS)}")
    return tags


def _checked(tags: Pairs) -> dict[str, str]:
    for key, value in _known_keys(tags).items():
        if value is not None and len(value) > LONGEST:
            raise Refusal(
                refusals.INVALID_TAG_VALUE, f"tag {key} has {len(value)} characters; at most {LONGEST} are allowed"
            )
    return {key: value or "" for key, value in tags.items()}


def _check_collection(collection: str) -> None:
    if not collection or len(collection) > LONGEST:
        raise Refusal(
            refusals.INVALID_COLLECTION, f"collection has {len(collection)} characters; it should have 1 to {LONGEST}"
        )


def _ambiguous() -> Refusal:
    return Refusal(
        refusals.AMBIGUOUS_STREAM, "a stream with the same collection and tags exists already under another uuid"
    )
