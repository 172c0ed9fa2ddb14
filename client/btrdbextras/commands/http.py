"""Over HTTPS: archives to the ingress, files from the downloads."""

import contextlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.parse
import uuid
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

from btrdbextras import errors
from btrdbextras.eventproc.call import not_shaken, trusting

TIMEOUT_S = 120.0
CHUNK = 1 << 18
NAME_BYTES = 255  # the longest name that file systems take
TRIES = 5
Advance = Callable[[int], Any]


class Body:
    """Files as the body of a request: one as it is, several as a form. size: bytes."""

    def __init__(self, paths: List[str]) -> None:
        self.kind = "application/octet-stream"
        self._parts: List[Any] = list(paths)
        if len(paths) > 1:
            border = uuid.uuid4().hex
            self.kind = "multipart/form-data; boundary=" + border
            self._parts = []
            for path in paths:
                name = re.sub(r'[\r\n"\\]', "_", os.path.basename(path))
                head = '--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % (border, name)
                self._parts += [head.encode(), path, b"\r\n"]
            self._parts.append(("--%s--\r\n" % border).encode())
        self.size = sum(len(one) if isinstance(one, bytes) else os.path.getsize(one) for one in self._parts)

    def chunks(self, advance: Advance) -> Iterator[bytes]:
        """Its bytes; advance is told of each piece."""
        for part in self._parts:
            if isinstance(part, bytes):
                advance(len(part))
                yield part
                continue
            with open(part, "rb") as file:
                while True:
                    chunk = file.read(CHUNK)
                    if not chunk:
                        break
                    advance(len(chunk))
                    yield chunk


class _BrokeOff(Exception):
    """The connection was lost in the middle."""


class Server:
    """One that is asked with an API key, over TLS alone. Raises EventProcError, ValueError."""

    def __init__(self, url: str, apikey: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("%r should be an address with https://, for the API key goes there" % url)
        self._at = "%s:%d" % (parts.hostname, parts.port or 443)
        self._path = parts.path
        self._headers = {"Authorization": "Bearer " + apikey}
        self._http = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=TIMEOUT_S, context=trusting()
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.close()

    def get(self, path: str) -> Dict[str, Any]:
        """What GET answers, tried again where the server is away for a moment."""
        return self._answer(lambda: self._send("GET", self._path.rstrip("/") + path, {}))

    def post(self, path: str, query: Dict[str, str], body: Body, once: str, advance: Advance) -> Dict[str, Any]:
        """What POST answers. once: the Idempotency-Key, with which a second try is the first one."""
        target = "%s%s?%s" % (self._path.rstrip("/"), path, urllib.parse.urlencode(query))
        headers = {"Content-Type": body.kind, "Content-Length": str(body.size), "Idempotency-Key": once}
        sent = 0

        def count(more: int) -> None:
            nonlocal sent
            sent += more
            advance(more)

        def send() -> Any:
            nonlocal sent
            advance(-sent)
            sent = 0
            return self._send("POST", target, headers, body.chunks(count))

        return self._answer(send)

    def save(self, folder: str, force: bool, taken: Set[str], bar: Callable[[str, int], Any]) -> str:
        """Saves what GET answers in the folder, under the name that it was given; returns the path.

        taken: names, in lower case, that were given in this call already: a second plot.png becomes plot-2.png. Its own is added.
        """
        try:
            answer = self._send("GET", self._path, {})
        except _BrokeOff as error:
            raise errors.NoServer("%s broke off: %s" % (self._at, error)) from error
        if answer.status != 200:
            raise self._refused(answer.status, answer.read(1 << 16).decode("utf-8", "replace").strip())
        given = _name(answer.getheader("Content-Disposition", "")) or self._path.rpartition("/")[2]
        name = _unlike(given, taken)
        size = int(answer.getheader("Content-Length", "0"))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        if os.path.lexists(path) and not force:
            raise ValueError("%s is there already; --force writes over it, --output names another folder" % path)
        part = os.path.join(folder, uuid.uuid4().hex + ".part")
        try:
            with bar(name, size) as advance, open(part, "wb") as out:
                got = 0
                for chunk in self._chunks(answer):
                    out.write(chunk)
                    got += len(chunk)
                    advance(len(chunk))
            if got != size:
                raise errors.NoServer("%s sent %d of %d bytes of %s; try again" % (self._at, got, size, name))
            os.replace(part, path)
            taken.add(name.lower())
        finally:
            with contextlib.suppress(OSError):
                os.remove(part)
        return path

    def _chunks(self, answer: Any) -> Iterator[bytes]:
        while True:
            try:
                chunk = answer.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise errors.NoServer("%s broke off: %s; try again" % (self._at, error)) from error
            if not chunk:
                return
            yield chunk

    def _answer(self, send: Callable[[], Any]) -> Dict[str, Any]:
        for tried in range(1, TRIES + 1):
            try:
                answer = send()
                text = answer.read().decode("utf-8", "replace")
            except (_BrokeOff, http.client.HTTPException) as error:
                if tried == TRIES:
                    raise errors.NoServer("%s broke off: %s" % (self._at, error)) from error
            else:
                if answer.status in (200, 202):
                    return self._told(text)
                if answer.status not in (429, 502, 503, 504) or tried == TRIES:
                    raise self._refused(answer.status, text)
            self._http.close()
            time.sleep(2.0 ** (tried - 1))
        raise AssertionError("not reached")

    def _told(self, text: str) -> Dict[str, Any]:
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise errors.NoServer(
                "%s answers, but not as the platform does (%r); check the address" % (self._at, text[:100])
            ) from error

    def _send(self, method: str, target: str, headers: Dict[str, str], body: Optional[Iterator[bytes]] = None) -> Any:
        """The answer; _BrokeOff when the connection was lost, which may be tried again."""
        if self._http.sock is None:
            self._connect()
        try:
            self._http.request(method, target, body, dict(self._headers, **headers))
        except OSError as error:
            # a refusal may come before all was sent
            with contextlib.suppress(Exception):
                return self._http.getresponse()
            raise _BrokeOff(str(error)) from error
        try:
            return self._http.getresponse()
        except OSError as error:
            raise _BrokeOff(str(error)) from error
        except http.client.HTTPException as error:
            raise errors.NoServer(
                "%s answers, but not as a server of HTTP does (%s: %s); check the address"
                % (self._at, type(error).__name__, error)
            ) from error

    def _connect(self) -> None:
        try:
            self._http.connect()
        except (OSError, ssl.CertificateError) as error:
            nobody = "nobody answers at %s: check the address and your network (%s)"
            raise not_shaken(self._at, error, nobody) from error

    def _refused(self, status: int, text: str) -> errors.EventProcError:
        try:
            told = str(json.loads(text)["detail"])
        except (ValueError, KeyError, TypeError):
            told = text[:500] or "without a word"
        kind: Any = {401: errors.WrongKey, 403: errors.NotYours, 404: errors.NotFound, 410: errors.NotFound}.get(status)
        if kind is None:
            kind = errors.InvalidRequest if 400 <= status < 500 else errors.ServiceFailed
        error: errors.EventProcError = kind("%s answers %d: %s" % (self._at, status, told))
        return error


def _unlike(name: str, taken: Set[str]) -> str:
    """The name, numbered where it is taken, and cut where no file system would take it; its ending stays."""
    stem, ending = os.path.splitext(name)
    if len(ending.encode()) > NAME_BYTES // 2:
        stem, ending = name, ""
    number = 1
    while True:
        tail = "-%d%s" % (number, ending) if number > 1 else ending
        found = stem.encode()[: NAME_BYTES - len(tail.encode())].decode("utf-8", "ignore") + tail
        if found.lower() not in taken:
            return found
        number += 1


def _name(header: str) -> str:
    """The file name of a Content-Disposition, without any folder."""
    encoded = re.search(r"filename\*=UTF-8''([^;\s]+)", header)
    plain = re.search(r'filename="([^"]*)"', header)
    text = urllib.parse.unquote(encoded.group(1)) if encoded else plain.group(1) if plain else ""
    text = re.sub(r"[\x00-\x1f\x7f/\\]", "_", text)
    return text if text not in ("", ".", "..") else ""
