"""Files that a handler gave to upload_file -> the object store, under the run's id; what could not be kept is said in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from executor.sandbox.job import CollectedUpload
from objectstore import ObjectStore
from schemas.errors import TryLater
from schemas.records import Upload, stored_name

log = structlog.get_logger()

T = TypeVar("T")


class Keeper:
    """store: None keeps nothing, and says so."""

    def __init__(self, store: ObjectStore | None) -> None:
        self._store = store

    def keep(
        self, run_id: str, uploads: Sequence[CollectedUpload], patiently: Callable[[Callable[[], None]], None]
    ) -> tuple[tuple[Upload, ...], str]:
        """Stores the files and deletes the copies in the spool; what was kept, and a text for the log on what was not.

        patiently: does the work again while it raises TryLater, as long as that makes sense. Blocks.
        """
        kept, notes = [], []
        for upload in uploads:
            try:
                self._put(run_id, upload, patiently)
                kept.append(Upload(upload.code, upload.name, upload.size))
            except TryLater as error:
                log.error("upload not kept", run_id=run_id, name=upload.name, reason=error.reason)
                notes.append(f"eventproc: upload {upload.name!r} could not be kept: the storage is away\n")
            except LookupError:
                notes.append(
                    f"eventproc: upload {upload.name!r} was not kept: this platform has no storage for files\n"
                )
            finally:
                if upload.path is not None:
                    with contextlib.suppress(FileNotFoundError):
                        upload.path.unlink()
        return tuple(kept), "".join(notes)

    def _put(self, run_id: str, upload: CollectedUpload, patiently: Callable[[Callable[[], None]], None]) -> None:
        store, path = self._store, upload.path
        if store is None or path is None:
            raise LookupError
        patiently(lambda: store.put(path, stored_name(run_id, upload.code)))
