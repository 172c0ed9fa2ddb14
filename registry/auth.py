"""Which executors may call: service tokens, in a file that may change while we run. Users' keys: callers/."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

import structlog

from callers import bearer
from registry.refuse import Refusal

log = structlog.get_logger()


class ServiceTokens:
    """The tokens file: one a line, several while they are rotated. While it is empty or cannot be read, those before count."""

    def __init__(self, file: Path) -> None:
        """Raises ValueError when there is no token in the file."""
        self._file = file
        self._tokens = self._read()

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raises Refusal (UNAUTHENTICATED) unless the metadata has one of the tokens."""
        given = (bearer(metadata) or "").encode()
        try:
            self._tokens = self._read()
        except ValueError as error:
            log.error("the service tokens before count", reason=str(error))
        if not any([hmac.compare_digest(given, token) for token in self._tokens]):  # noqa: C419 - all, for constant time
            raise Refusal.unauthenticated(
                "the service token is not known here; EXECUTOR_TOKEN_FILE should hold one of the registry's"
            )

    def _read(self) -> list[bytes]:
        try:
            tokens = [line.strip().encode() for line in self._file.read_text().splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise ValueError(f"{self._file}: should have a service token on each line: {error}") from error
        if not tokens:
            raise ValueError(f"{self._file}: should have a service token on each line; it is empty")
        return tokens
