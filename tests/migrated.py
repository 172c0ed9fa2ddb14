"""A migrated ledger in SQLite for each test: a copy of one that was migrated once, for that takes longer than most tests."""

import functools
import tempfile
from pathlib import Path

from ledger import Ledger


def migrated(path: Path) -> str:
    """Makes the file, unless it is there; its URL."""
    if not path.exists():
        path.write_bytes(_made())
    return f"sqlite:///{path}"


@functools.cache
def _made() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        ledger = Ledger.open(f"sqlite:///{path}")
        ledger.migrate()
        ledger.close()
        return path.read_bytes()
