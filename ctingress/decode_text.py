"""Bytes of a text file -> text: UTF-8, else the legacy code page that makes most sense of them."""

from __future__ import annotations

import codecs

import charset_normalizer

_CODE_PAGES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp850", "cp437", "cp866", "iso8859_2"),
    *("koi8_r", "cp932", "gb18030", "big5", "cp949"),
]
_AS_GOOD = 0.05


def decode_text(data: bytes) -> str:
    """Text of a CFG, HDR or INF file, without a byte order mark; never fails (latin-1 takes every byte)."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    found = charset_normalizer.from_bytes(data, cp_isolation=_CODE_PAGES, threshold=0.5)
    best = found.best()
    if best is None:
        return data.decode("latin-1")
    for match in found:  # western recorders are the most common: among equals theirs
        if match.encoding == "cp1252" and match.chaos <= best.chaos + _AS_GOOD:
            return str(match)
    return str(best)
