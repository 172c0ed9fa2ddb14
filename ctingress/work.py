"""A stored archive -> BTrDB -> its event, in the background, by whichever process is there; once, over restarts."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import structlog
from btrdb.exceptions import BTrDBError

from ctingress.describe import HOOK, Described, Unreadable
from ctingress.ingest import Options, ingest
from ctingress.open import Limits
from ctingress.refuse import BadArchive
from ctingress.room import Room
from ctingress.write import NotWritten, key_refused
from ledger import Ledger, archives
from ledger.archives import ArchiveView
from ledger.engine import now_ms
from objectstore import ObjectStore
from schemas.errors import InvalidMessage, TryLater
from stream.broker import Producer
from telemetry import metrics

log = structlog.get_logger()

LONGEST_WAIT_S = 300.0
MOST_LOST = 5


class LeaseLost(Exception):
    """Another worker has the archive now; what is left of the work is its."""


@dataclass
class Progress:
    """What is done of an archive; written by the worker, read by the thread that prolongs its lease."""

    done: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lost: bool = False

    def told(self, archive: ArchiveView) -> list[Mapping[str, Any]]:
        """Every data set of the archive, as it stands."""
        return [self.done.get(str(d["Name"]), archives.undone(str(d["Name"]))) for d in archive.data_sets]


class Worker:
    """Takes one archive after another. Any number of them, in any number of processes."""

    def __init__(
        self,
        ledger: Ledger,
        keep: ObjectStore,
        producer: Producer,
        connect: Callable[[str], Any],
        *,
        limits: Limits,
        largest_message: int,
        lease_s: float = 15.0,
        give_up_s: float = 3 * 86_400.0,
        room: Room | None = None,
    ) -> None:
        """connect: gives btrdb's connection under an API key; give_up_s: how long something may be away; room: its process's."""
        self._ledger = ledger
        self._keep = keep
        self._producer = producer
        self._connect = connect
        self._limits = limits
        self._largest_message = largest_message
        self._lease_s = lease_s
        self._give_up_s = give_up_s
        self._room = room or Room()
        self._name = uuid.uuid4().hex
        self._in_hand: ArchiveView | None = None

    def turn(self) -> bool:
        """Works on the archive that is due, if there is one, to its end; whether there was one. Blocks; raises TryLater."""
        with self._ledger.write() as session:
            taken = archives.take(session, self._ledger, self._name, self._lease_s)
        if taken is None:
            return False
        archive, key = taken
        self._in_hand = archive
        progress, ended = Progress(), threading.Event()
        renewer = threading.Thread(target=self._renew, args=(archive, progress, ended), name="renewer", daemon=True)
        renewer.start()
        try:
            with self._room.entered(alone=archive.lost > 0):
                self._end(archive, progress, self._error_of(archive, key, progress))
        except LeaseLost:
            log.warning("the archive is another worker's now", request_id=archive.request_id)
        except TryLater as error:
            self._put_off(archive, progress, error.reason)
        finally:
            ended.set()
            renewer.join()
        self._in_hand = None
        return True

    def leave(self) -> None:
        """From another thread, when the process ends in good order: what is in hand is the next one's, and nobody was lost on it.

        Blocks; raises TryLater.
        """
        if (archive := self._in_hand) is not None:
            with self._ledger.write() as session:
                archives.put_off(session, archive.request_id, self._name, "the ingress was stopped", 0.0)

    def _error_of(self, archive: ArchiveView, key: str | None, progress: Progress) -> str:
        """'' when its event is published, else why it never will be. Raises TryLater, LeaseLost."""
        with self._ledger.read() as session:
            if archives.published_before(session, HOOK, archive.request_id):
                progress.done.update((str(d["Name"]), d) for d in archive.data_sets if d["Success"] is not None)
                return ""
        if archive.lost >= MOST_LOST:
            return (
                f"given up: the process that worked on it ended in the middle, {archive.lost} times; perhaps it takes more "
                "memory than there is: split the archive, or ask your operator"
            )
        if key is None:
            return "the uploader's key cannot be unsealed any more; upload the archive again"
        try:
            self._ingest(archive, key, progress)
        except BadArchive as error:
            return str(error)
        except InvalidMessage as error:
            return error.reason
        except FileNotFoundError:
            return "the stored archive is gone; upload it again"
        except NotWritten as error:
            if error.for_good:
                return str(error)
            raise TryLater(str(error)) from error
        except (BTrDBError, OSError, grpc.RpcError) as error:
            return f"BTrDB refuses the uploader's key: {key_refused(error)}"
        return ""

    def _ingest(self, archive: ArchiveView, key: str, progress: Progress) -> None:
        def note(data_set: Described | Unreadable) -> None:
            error = data_set.error if isinstance(data_set, Unreadable) else ""
            progress.done[data_set.name] = {"Name": data_set.name, "Success": not error, "Error": error}
            self._tell(archive, progress)

        with tempfile.TemporaryDirectory(prefix="ctingress-") as folder:
            path = Path(folder) / "archive.zip"
            self._keep.get(archive.stored, path)
            options = Options(
                archive.tags, archive.prefix, archive.zone, archive.request_id, archive.submitted_at, archive.file_name
            )
            ingest(
                path,
                options,
                self._connect(key),
                self._producer,
                limits=self._limits,
                largest_message=self._largest_message,
                progress=note,
            )

    def _end(self, archive: ArchiveView, progress: Progress, error: str) -> None:
        with self._ledger.write() as session:
            if not archives.end(session, archive.request_id, self._name, error, progress.told(archive)):
                raise LeaseLost
        metrics.archives_total.labels(outcome="failed" if error else "published").inc()
        told = {"request_id": archive.request_id, "file": archive.file_name, "owner": archive.owner}
        if error:
            log.error("archive failed", error=error, **told)
        else:
            log.info("archive published", **told)
            self._keep.remove(archive.stored)

    def _put_off(self, archive: ArchiveView, progress: Progress, why: str) -> None:
        with self._ledger.write() as session:
            waited_s = (now_ms(session) - archive.created_at_ms) / 1000
            if waited_s <= self._give_up_s:
                wait_s = min(2.0 ** min(archive.tries, 20), LONGEST_WAIT_S)
                archives.put_off(session, archive.request_id, self._name, why, wait_s)
                log.warning("archive put off", request_id=archive.request_id, reason=why, wait_s=wait_s)
                return
        self._end(archive, progress, f"given up after {waited_s / 3600:.0f} h: {why}")

    def _tell(self, archive: ArchiveView, progress: Progress) -> None:
        """Raises LeaseLost, so that the work stops."""
        if progress.lost:
            raise LeaseLost
        with self._ledger.write() as session:
            told = progress.told(archive)
            if not archives.progress(session, archive.request_id, self._name, told, self._lease_s):
                progress.lost = True
                raise LeaseLost

    def _renew(self, archive: ArchiveView, progress: Progress, ended: threading.Event) -> None:
        """A single recording may take longer than a lease."""
        while not ended.wait(self._lease_s / 3):
            try:
                self._tell(archive, progress)
            except LeaseLost:
                return
            except TryLater as error:
                log.warning("the archive's lease was not prolonged", reason=error.reason)
