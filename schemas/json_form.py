"""JSON as people and scripts write it, made to fit an Avro contract: union tags may be left out, 64-bit integers be strings."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

WORDS = {
    "string": "text",
    "boolean": "true or false",
    "double": "a number",
    "int": "a whole number",
    "long": "a whole number",
}
BOUNDS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}


def fit(schema: Any, given: Any, where: str, named: dict[str, Any] | None = None) -> Any:
    """The value that the schema describes.

    schema: an Avro schema as JSON; given: what json.loads returned; where: path so far, '' at the top.
    Fields that are missing take their default; fields that the schema does not know are passed over, as in Avro's resolution.
    Raises ValueError naming the path, what stands there and what would be right.
    """
    named = {} if named is None else named
    if isinstance(schema, list):
        return _fit_union(schema, given, where, named)
    kind = schema["type"] if isinstance(schema, Mapping) else schema
    if isinstance(kind, (list, Mapping)):
        return fit(kind, given, where, named)
    if kind == "record":
        named[schema["name"]] = schema
        return _fit_record(schema, given, where, named)
    if kind == "array":
        if not isinstance(given, list):
            raise _wrong(where, "a list", given)
        return [fit(schema["items"], item, f"{where}[{i}]", named) for i, item in enumerate(given)]
    if kind in named:
        return fit(named[kind], given, where, named)
    return _fit_plain(kind, given, where)


def _fit_record(schema: Mapping[str, Any], given: Any, where: str, named: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise _wrong(where, "an object", given)
    fitted = {}
    for field in schema["fields"]:
        path = f"{where}.{field['name']}" if where else field["name"]
        if field["name"] in given:
            fitted[field["name"]] = fit(field["type"], given[field["name"]], path, named)
        elif "default" in field:
            fitted[field["name"]] = field["default"]
        else:
            raise ValueError(f"{path} is missing")
    return fitted


def _fit_union(branches: list[Any], given: Any, where: str, named: dict[str, Any]) -> Any:
    if given is None:
        if "null" in branches:
            return None
        raise _wrong(where, " or ".join(str(b) for b in branches), given)
    others = [b for b in branches if b != "null"]
    if (
        isinstance(given, Mapping) and len(given) == 1
    ):  # Avro's own JSON names the branch: {"array": [...]}, {"long": 5}
        for branch in others:
            if _tag(branch) in given:
                return fit(branch, given[_tag(branch)], where, named)
    for branch in others[:-1]:
        try:
            return fit(branch, given, where, named)
        except ValueError:
            continue
    return fit(others[-1], given, where, named)


def _tag(branch: Any) -> str:
    """By what Avro's JSON encoding names a branch of a union: a type's name, a named type's full name."""
    if not isinstance(branch, Mapping):
        return str(branch)
    if "name" not in branch:
        return str(branch["type"])
    return f"{branch['namespace']}.{branch['name']}" if "namespace" in branch else str(branch["name"])


def _fit_plain(kind: str, given: Any, where: str) -> Any:
    if kind == "string" and isinstance(given, str):
        try:
            given.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{where or 'the message'}: has a lone surrogate; it should be valid Unicode text"
            ) from None
        return given
    if kind == "boolean" and isinstance(given, bool):
        return given
    if kind in BOUNDS and not isinstance(given, bool):
        return _whole(kind, given, where)
    if kind in ("double", "float") and isinstance(given, (int, float)) and not isinstance(given, bool):
        try:
            return float(given)
        except OverflowError:
            raise _wrong(where, "a number below 1.8e308", given) from None
    if kind == "bytes" and isinstance(given, str):
        try:
            return base64.b64decode(given, validate=True)
        except binascii.Error:
            raise _wrong(where, "base64 text", given) from None
    if kind == "null" and given is None:
        return None
    raise _wrong(where, WORDS.get(kind, kind), given)


def _whole(kind: str, given: Any, where: str) -> int:
    if isinstance(given, str):
        try:
            given = int(given, 10)
        except ValueError:
            raise _wrong(where, "a whole number", given) from None
    if isinstance(given, float) and given.is_integer() and abs(given) < 2**53:
        given = int(given)
    low, high = BOUNDS[kind]
    if not isinstance(given, int) or not low <= given <= high:
        raise _wrong(where, f"a whole number ({kind})", given)
    return given


def _wrong(where: str, wanted: str, given: Any) -> ValueError:
    try:
        shown = repr(given)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list ...
        shown = f"too large to be shown ({type(given).__name__})"
    return ValueError(
        f"{where or 'the message'}: should be {wanted}, is {shown if len(shown) <= 60 else shown[:57] + '...'}"
    )
