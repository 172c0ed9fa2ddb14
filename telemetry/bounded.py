"""Label values that nobody else bounds: the first few keep their names, the rest share one."""

from __future__ import annotations

OWNERS = 50
OTHER = "other"
_owners: set[str] = set()


def owner_label(owner: str) -> str:
    """The owner as a label: itself, or 'other' once this process has seen OWNERS others. Any thread."""
    if owner not in _owners and len(_owners) < OWNERS:
        _owners.add(owner)
    return owner if owner in _owners else OTHER
