"""An upload as it was received -> checked, stored and booked, once."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from callers import ApiKeys, Caller
from ctingress.ingest import rfc3339
from ctingress.open import Limits
from ctingress.pack import Packed, Received, pack
from ledger import Ledger, archives
from ledger.archives import ArchiveView, NewArchive
from objectstore import ObjectStore
from schemas.errors import TryLater

log = structlog.get_logger()

LONGEST_NAME = 255
_CHUNK = 1 << 20
_LONG = 200


@dataclass(frozen=True)
class Desk:
    """What the service needs. max_upload: bytes of one upload; once_by_digest: the same content is the same upload;
    wake: told that there is work."""

    ledger: Ledger
    keys: ApiKeys
    keep: ObjectStore
    limits: Limits
    max_upload: int
    once_by_digest: bool = False
    wake: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Asked:
    """What goes with an upload. tags: sorted, each once; name, prefix, timezone: '' for none; once: the Idempotency-Key."""

    tags: tuple[str, ...]
    name: str
    prefix: str
    timezone: str
    once: str | None


class OtherUpload(ValueError):
    """The Idempotency-Key belongs to another upload; the text says to which, and what differs."""


def accept(desk: Desk, caller: Caller, asked: Asked, files: list[Received], folder: Path) -> tuple[ArchiveView, bool]:
    """The archive as it is booked, and whether it is new. Blocks; raises BadArchive, TryLater, OtherUpload: nothing is kept then."""
    content = hashlib.sha256()
    for file in files:
        with file.path.open("rb") as parts:
            while part := parts.read(_CHUNK):
                content.update(part)
    digest = content.hexdigest()
    packed = pack(files, folder, desk.limits)
    new = _new(caller, asked, packed, digest, _once(asked, digest, desk.once_by_digest))
    view, is_new = _keep(desk, packed.path, new)
    if not is_new:
        _discard(desk.keep, new.stored)
        if asked.once is not None and (other := _differences(view, new)):
            of = f"{view.file_name} with {', '.join(other)}"
            raise OtherUpload(f"Idempotency-Key {asked.once!r} was used for another upload ({of}); take a new one")
        return view, False
    log.info("archive stored", request_id=view.request_id, file=view.file_name, owner=view.owner, size=view.size)
    desk.wake()
    return view, True


def _once(asked: Asked, digest: str, by_digest: bool) -> str | None:
    if asked.once is not None:
        return f"key {asked.once}"
    if not by_digest:
        return None
    # none of the three holds a line's end; without prefix and timezone it is what the release before wrote
    about = "\n".join((",".join(asked.tags), asked.prefix, asked.timezone)).rstrip("\n")
    if len(about) > _LONG:
        about = hashlib.sha256(about.encode()).hexdigest()
    return f"{archives.BY_DIGEST}{digest} {about}"


def _new(caller: Caller, asked: Asked, packed: Packed, digest: str, once: str | None) -> NewArchive:
    request_id = str(uuid.uuid4())
    return NewArchive(
        request_id=request_id,
        owner=caller.user,
        api_key=caller.key,
        file_name=packed.name[:LONGEST_NAME],
        stored=f"{request_id}.zip",
        size=packed.path.stat().st_size,
        digest=digest,
        data_sets=packed.data_sets,
        tags=asked.tags,
        prefix=asked.prefix,
        zone=asked.timezone or None,
        submitted_at=rfc3339(time.time_ns()),
        once=once,
    )


def _keep(desk: Desk, path: Path, new: NewArchive) -> tuple[ArchiveView, bool]:
    """The bytes in the store, then the archive in the ledger; whether it is new there. An error leaves no bytes that nobody knows."""
    committing = False

    def book() -> tuple[ArchiveView, bool]:
        nonlocal committing
        with desk.ledger.write() as session:
            ours = archives.get(session, new.request_id) if committing else None
            booked = (ours, True) if ours is not None else archives.add(session, desk.ledger, new)
            committing = True
        return booked

    try:
        desk.keep.put(path, new.stored)
        try:
            return book()
        except (
            TryLater
        ):  # the same upload may have come through another ingress just now, or the commit's answer was lost
            return book()
    except BaseException:
        if not committing or not _perhaps_booked(desk.ledger, new.request_id):
            _discard(desk.keep, new.stored)
        raise


def _perhaps_booked(ledger: Ledger, request_id: str) -> bool:
    """Whether it is in the ledger, or may be: a commit whose answer was lost has happened or not."""
    try:
        with ledger.read() as session:
            return archives.get(session, request_id) is not None
    except TryLater:
        return True


def _discard(keep: ObjectStore, stored: str) -> None:
    try:
        keep.remove(stored)
    except TryLater as error:
        log.warning("bytes that no archive has were not removed", stored=stored, reason=error.reason)


def _differences(known: ArchiveView, new: NewArchive) -> list[str]:
    """What the known one has in place of the new one's."""
    told = {
        "other content": (known.digest, new.digest),
        f"tags {', '.join(known.tags) or 'none'}": (known.tags, new.tags),
        f"prefix {known.prefix or 'none'}": (known.prefix, new.prefix),
        f"timezone {known.zone or 'none'}": (known.zone, new.zone),
    }
    return [what for what, (one, other) in told.items() if one != other]
