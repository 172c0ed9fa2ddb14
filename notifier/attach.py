"""A run's files -> links, and pictures to be shown in the email itself, within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import structlog

from objectstore import ObjectStore
from schemas.errors import TryLater
from schemas.records import Upload, stored_name

log = structlog.get_logger()

PICTURES = {".png": ("png", b"\x89PNG\r\n\x1a\n"), ".svg": ("svg+xml", b"<")}
"""By ending: the subtype of image/, and how such a file begins."""


@dataclass(frozen=True)
class File:
    """A file as the email names it. link: '' when there is no download service; picture: its content, None when it is not shown."""

    name: str
    size: int
    link: str
    code: str = ""
    subtype: str = ""
    picture: bytes | None = None


@dataclass(frozen=True)
class Files:
    """endpoint: host[:port] of the download service, '' for none; store: where files lie, None: no pictures are shown.

    picture_bytes: of one picture; email_bytes: of all pictures in one email.
    """

    endpoint: str = ""
    store: ObjectStore | None = None
    picture_bytes: int = 1 << 20
    email_bytes: int = 4 << 20

    def of(self, run_id: str, uploads: Sequence[Upload]) -> tuple[File, ...]:
        """The run's files in the order of their upload. Blocks while pictures are read; a storage that is away costs pictures only."""
        files, left = [], self.email_bytes
        for upload in uploads:
            link = f"https://{self.endpoint}/{upload.code}" if self.endpoint else ""
            subtype, picture = self._picture(run_id, upload, min(left, self.picture_bytes))
            left -= len(picture or b"")
            files.append(File(upload.name, upload.size, link, upload.code, subtype, picture))
        return tuple(files)

    def _picture(self, run_id: str, upload: Upload, most: int) -> tuple[str, bytes | None]:
        subtype, start = PICTURES.get(PurePosixPath(upload.name).suffix.lower(), ("", b""))
        if self.store is None or not subtype or not 0 < upload.size <= most:
            return "", None
        try:
            content = b"".join(self.store.chunks(stored_name(run_id, upload.code)))
        except (TryLater, FileNotFoundError) as error:
            log.warning("picture not shown", run_id=run_id, name=upload.name, reason=str(error))
            return "", None
        whole = len(content) == upload.size and content.lstrip().startswith(start)
        return (subtype, content) if whole else ("", None)


NO_FILES = Files()
