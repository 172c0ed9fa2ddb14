"""Which executors may call: service tokens, in a file that may change while we run. Users' keys: callers/."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from callers import bearer
from registry.refuse import Refusal


class ServiceTokens:
    """The tokens file: one a line, several while they are rotated."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raises Refusal (UNAUTHENTICATED) unless the metadata has one of the tokens."""
        given = (bearer(metadata) or "").encode()
        tokens = [line.strip().encode() for line in self._file.read_text().splitlines() if line.strip()]
        if not any([hmac.compare_digest(given, token) for token in tokens]):  # noqa: C419 - all of them, for constant time
            raise Refusal.unauthenticated(
                "the service token is not known here; EXECUTOR_TOKEN_FILE should hold one of the registry's"
            )
