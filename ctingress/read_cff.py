"""A CFF file -> its sections (IEEE C37.111-2013, clause 6): CFG, INF, HDR and DAT in one."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from ctingress.decode_text import decode_text
from ctingress.refuse import BadRecording

_HEADER = re.compile(
    rb"(?:\A(?:\xef\xbb\xbf)?|(?<=[\r\n]))[ \t]*-{3,}[ \t]*file[ \t]+type[ \t]*:[ \t]*(CFG|INF|HDR|DAT)"
    rb"(?:[ \t]+(ASCII|BINARY32|BINARY|FLOAT32))?(?:[ \t]*:[ \t]*([0-9]{1,18}))?[ \t]*-{3,}[ \t,]*(?:\r\n|\n|\r|\Z)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sections:
    """cfg, hdr, inf: text; dat: its bytes; encoding: what the DAT section's header says, '' when it does not.

    cfg_line, dat_line: where these sections begin in the file, counted from 1.
    """

    cfg: str
    hdr: str | None
    inf: str | None
    dat: bytes
    encoding: str
    cfg_line: int
    dat_line: int


def is_cff(head: bytes) -> bool:
    """Whether a file that begins so is a CFF file: its first line is a section's header, as '--- file type: CFG ---'."""
    return _HEADER.match(head.lstrip()) is not None


def read_cff(data: bytes) -> Sections:
    """The sections of a CFF file. Raises BadRecording naming the one that is missing or cut off."""
    texts: dict[str, str] = {}
    cfg_line = 1
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = decode_text(data).encode()
    position = 0
    header = _HEADER.search(data)
    while header is not None:
        kind = header.group(1).decode().upper()
        position = header.end()
        if kind == "DAT":
            dat = _dat(data, position, header)
            break
        header = _HEADER.search(data, position)
        if kind == "CFG":
            cfg_line = _line(data, position)
        texts[kind] = decode_text(data[position : header.start() if header else len(data)])
    else:
        raise BadRecording("the CFF file has no section '--- file type: DAT ... ---'")
    if "CFG" not in texts:
        raise BadRecording("the CFF file has no section '--- file type: CFG ---' before its DAT section")
    encoding = (header.group(2) or b"").decode().upper()
    told = _some(texts.get("HDR")), _some(texts.get("INF"))
    return Sections(texts["CFG"], *told, dat, encoding, cfg_line, _line(data, position))


def _line(data: bytes, position: int) -> int:
    return 1 + len(re.findall(rb"\r\n|\n|\r", data[:position]))


def _dat(data: bytes, position: int, header: re.Match[bytes]) -> bytes:
    if header.group(3) is not None:
        size = int(header.group(3))
        if len(data) - position < size:
            raise BadRecording(
                f"the DAT section should have {size} bytes; {len(data) - position} are there: it is cut off"
            )
        return data[position : position + size]
    following = _HEADER.search(data, position) if header.group(2) in (None, b"ASCII") else None
    return data[position : following.start() if following else len(data)]


def _some(text: str | None) -> str | None:
    return text if text is not None and text.strip() else None
