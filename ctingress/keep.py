"""Where uploaded archives lie until their event is published: a folder, or whatever fsspec reaches by a URL."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import TryLater


class Keep:
    """Archives by name. Every method blocks and raises TryLater when the storage is away."""

    def __init__(self, url: str) -> None:
        """url: file:///var/lib/eventproc/archives, s3://bucket/archives, ... Raises ValueError when no protocol takes it."""
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ValueError(f"{url}: {error}; install what this storage needs") from error
        self._local = isinstance(self._files, LocalFileSystem)

    def put(self, path: Path, name: str) -> None:
        """Keeps a copy of the file, durably: a copy that was cut off is nowhere looked for."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(path), self._at(name))
            if self._local:
                _sync(Path(self._at(name)))
        except OSError as error:
            raise TryLater(f"the archive storage: {error}") from error

    def get(self, name: str, to: Path) -> None:
        """Copies an archive into the file. Raises FileNotFoundError when it is not there any more."""
        try:
            self._files.get_file(self._at(name), str(to))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TryLater(f"the archive storage: {error}") from error

    def remove(self, name: str) -> None:
        """Forgets an archive; one that is not there is no error."""
        try:
            self._files.rm_file(self._at(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TryLater(f"the archive storage: {error}") from error

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _sync(path: Path) -> None:
    for place in (path, path.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
