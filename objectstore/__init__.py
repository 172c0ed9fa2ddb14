"""Files by name, in a folder or in whatever else fsspec reaches by a URL: archives until they are published, handlers' files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import TryLater


class ObjectStore:
    """Files by name. Every method blocks and raises TryLater when the storage is away."""

    def __init__(self, url: str) -> None:
        """url: file:///var/lib/eventproc/files, s3://bucket/files, ... Raises ValueError when no protocol takes it."""
        self._url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ValueError(f"{url}: {error}; install what this storage needs") from error
        self._local = isinstance(self._files, LocalFileSystem)

    def put(self, path: Path, name: str) -> None:
        """Keeps a copy of the file under the name, durably. A copy that was cut off may be left: put it again, or ask nobody for it."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(path), self._at(name))
            if self._local:
                _sync(Path(self._at(name)))
        except OSError as error:
            raise TryLater(f"the storage at {self._url}: {error}") from error

    def get(self, name: str, to: Path) -> None:
        """Copies a file to that path. Raises FileNotFoundError when it is not there any more."""
        try:
            self._files.get_file(self._at(name), str(to))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TryLater(f"the storage at {self._url}: {error}") from error

    def remove(self, name: str) -> None:
        """Forgets a file; one that is not there is no error."""
        try:
            self._files.rm_file(self._at(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TryLater(f"the storage at {self._url}: {error}") from error

    def chunks(self, name: str, size: int = 1 << 18) -> Iterator[bytes]:
        """The file's bytes, in portions of at most size. Raises FileNotFoundError before the first when it is not there."""
        try:
            with self._files.open(self._at(name), "rb") as content:
                while chunk := content.read(size):
                    yield chunk
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TryLater(f"the storage at {self._url}: {error}") from error

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _sync(path: Path) -> None:
    for place in (path, path.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
