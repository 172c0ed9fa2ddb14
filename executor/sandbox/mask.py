"""The run's API key, in every form in which it may be printed, masked before anything leaves the executor."""

from __future__ import annotations

import base64
import functools
import re
from urllib.parse import quote, quote_plus

MASK = "[API key]"
SHORTEST = 4


@functools.lru_cache(maxsize=64)
def mask_of(key: str) -> Mask:
    """The mask of a key; those used last are kept, for most runs have a key that others had."""
    return Mask(key)


class Mask:
    """Masks one key: plain, URL-encoded, hexadecimal, and base64 (both alphabets, at every alignment within other text)."""

    def __init__(self, key: str) -> None:
        """key: as the handler has it; a key shorter than four characters is not masked (it would blot out the text)."""
        self._forms = sorted(_forms(key), key=len, reverse=True) if len(key) >= SHORTEST else []
        self._pattern = re.compile("|".join(re.escape(form) for form in self._forms)) if self._forms else None

    def __call__(self, text: str) -> str:
        """The text with every occurrence replaced."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def head(self, text: str) -> str:
        """Masks the beginning of a longer text: a key that was cut through at its end goes too."""
        masked = self(text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(masked)), SHORTEST - 1, -1):
                if masked.endswith(form[:length]):
                    return masked[:-length]
        return masked

    def tail(self, text: str) -> str:
        """Masks the end of a longer text: a key that was cut through at its beginning goes too."""
        masked = self(text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(masked)), SHORTEST - 1, -1):
                if masked.startswith(form[-length:]):
                    return masked[length:]
        return masked


def _forms(key: str) -> set[str]:
    raw = key.encode("utf-8", "surrogatepass")
    forms = {key, quote(raw, safe=""), quote(raw), quote_plus(raw), raw.hex(), raw.hex().upper()}
    forms |= {re.sub("%[0-9A-F]{2}", lambda m: m.group().lower(), form) for form in list(forms) if "%" in form}
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * offset + raw).decode().rstrip("=")
            # the characters that depend on the neighbours of the key are left out
            first = (0, 2, 3)[offset]
            last = len(text) - (1 if (offset + len(raw)) % 3 else 0)
            if last - first >= SHORTEST:
                forms.add(text[first:last])
    return {form for form in forms if len(form) >= SHORTEST}
