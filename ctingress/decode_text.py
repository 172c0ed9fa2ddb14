"""Bytes of text -> text: UTF-8, else the legacy code page that makes most sense of them."""

from __future__ import annotations

import codecs
import itertools
import re
import unicodedata
from collections.abc import Sequence

import chardet

_PAGES = {
    "cp1252": 1.0, "cp1250": 0.8, "cp1254": 0.8, "cp1251": 1.0, "cp1253": 0.5,
    "cp437": 0.2, "cp850": 0.3, "cp866": 0.5, "koi8-r": 0.3,
    "gb18030": 1.0, "cp932": 1.0, "cp949": 0.7, "big5": 0.7, "euc-jp": 0.3,
}  # fmt: skip
"""How often recorders and packers use each: what decides between pages in which a short name makes as much sense."""
_AS_GOOD = 0.7
_MOST = 20_000
_LONE = re.compile("[\udc80-\udcff]")
_SIGNS = frozenset("°±²³µ·º½№√")


def decode_text(data: bytes) -> str:
    """Text of a CFG, HDR or INF file, without a byte order mark; never fails (latin-1 takes every byte)."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(_code_page([data]))


def decode_names(names: Sequence[bytes]) -> list[str]:
    """File names of one archive -> text: all by the same code page, so that what belongs together keeps one name."""
    try:
        return [name.decode("utf-8") for name in names]
    except UnicodeDecodeError:
        page = _code_page(names)
        return [name.decode(page) for name in names]


def readable_names(names: Sequence[str]) -> list[str]:
    """File names as the system gives them, in which bytes that are not UTF-8 are lone surrogates -> text."""
    raw = {name: name.encode("utf-8", "surrogateescape") for name in names if _LONE.search(name)}
    decoded = dict(zip(raw, decode_names(list(raw.values())), strict=True))
    return [decoded.get(name, name) for name in names]


def _code_page(texts: Sequence[bytes]) -> str:
    """The likeliest that all texts are valid in. Only the fields that are not ASCII count: the rest would drown them."""
    fields = {field.strip(b" \t\0") for text in texts for field in re.split(rb"[,\r\n/]", text) if not field.isascii()}
    sample = b"\n".join(sorted(fields))[:_MOST]
    found = chardet.detect_all(sample, ignore_threshold=True, include_encodings=_PAGES, compat_names=False)
    likely = {}
    for page, share in ((str(one["encoding"]), one["confidence"]) for one in found):
        if _takes(page, texts):
            likely[page] = share * _PAGES.get(page, 0.3) * _sense(sample.decode(page, "replace"), page)
    if not likely:
        return "latin-1"
    best = max(likely, key=lambda page: likely[page])
    if best.startswith(("cp12", "cp437", "cp8", "koi")) and likely.get("cp1252", 0.0) >= _AS_GOOD * likely[best]:
        return "cp1252"  # western recorders are the most common: among equals theirs
    return best


def _sense(text: str, page: str) -> float:
    """1 for letters, as names have them; less for each kind of sign that no name has: frames, mixed alphabets, rare signs."""
    sense = 1.0
    for before, sign in itertools.pairwise(" " + text):
        if sign.isascii() or sign in _SIGNS:
            continue
        within = before.isascii() and before.isalpha()
        alphabet = unicodedata.name(sign, "").split(" ")[0]
        if unicodedata.category(sign)[0] not in "LN" or (within and alphabet in ("CYRILLIC", "GREEK")):
            sense *= 0.1
        elif page == "cp949" and alphabet == "CJK":
            sense *= 0.1  # Korean is written without
        elif within and before.islower() and alphabet != "LATIN":
            sense *= 0.3
    return max(sense, 1e-6)


def _takes(page: str, texts: Sequence[bytes]) -> bool:
    try:
        for text in texts:
            text.decode(page)
    except (UnicodeDecodeError, LookupError):
        return False
    return True
