"""What the executor asks the registry: claims, renewals, reports, hand-backs, blobs. Its only way to the ledger."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import grpc

from schemas.errors import TryLater
from schemas.generated import executorapi_pb2 as api
from schemas.generated.executorapi_pb2_grpc import ExecutorServiceStub

AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    # something broke there, or a proxy between: no reason to end what runs here
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
}


class NoSuchBlob(Exception):
    """The registry has no pickle of that digest."""


class Registry:
    """The registry's internal service over one TLS channel.

    Every call blocks for at most timeout_s and raises TryLater when the registry is away, or fails; any other refusal (a wrong service
    token, say) raises grpc.RpcError, which stops the process.
    """

    def __init__(
        self,
        address: str,
        token: Callable[[], str],
        ca: Path | None,
        timeout_s: float,
        max_bytes: int,
        slots: int = 0,
        runtimes: Sequence[str] = (),
        answers: Callable[[bool, str], None] = lambda ok, why: None,
    ) -> None:
        """token: gives the service token for each call, so that it may rotate; ca: a PEM file, None for no TLS.

        address: host:port; max_bytes: of one answer; slots, runtimes: what this executor has, for the fair shares; answers: told
        by each call, of any thread, whether the registry answers, or why it does not.
        """
        options = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", max_bytes),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
        ]
        if ca is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()), options)
        self._stub = ExecutorServiceStub(self._channel)
        self._token = token
        self._timeout_s = timeout_s
        self._slots = slots
        self._runtimes = tuple(runtimes)
        self._answers = answers

    def claim(self, boot_id: str, nonce: str, executor: str, run_ids: Sequence[str]) -> api.ClaimResponse:
        """Answers for these runs, in order; idempotent by (boot_id, nonce)."""
        asked = api.ClaimRequest(
            boot_id=boot_id, nonce=nonce, executor=executor, run_ids=run_ids, slots=self._slots, runtimes=self._runtimes
        )
        answer: api.ClaimResponse = self._ask(self._stub.Claim, asked)
        return answer

    def renew(self, boot_id: str, executor: str, leases: Sequence[tuple[str, str]]) -> list[str]:
        """Prolongs (run id, lease id) pairs; returns the run ids whose lease is lost. Without any it says that this executor is there."""
        asked = [api.Lease(run_id=run_id, lease_id=lease_id) for run_id, lease_id in leases]
        request = api.RenewRequest(
            boot_id=boot_id, executor=executor, leases=asked, slots=self._slots, runtimes=self._runtimes
        )
        answer: api.RenewResponse = self._ask(self._stub.Renew, request)
        return list(answer.lost_run_ids)

    def report(self, run_id: str, lease_id: str) -> bool:
        """Says that the run's result is in Kafka; False when the lease was lost meanwhile."""
        answer: api.ReportResponse = self._ask(
            self._stub.Report, api.ReportRequest(lease=api.Lease(run_id=run_id, lease_id=lease_id))
        )
        return answer.counted

    def hand_back(
        self, run_id: str, lease_id: str, reason: api.HandBackReason.ValueType, text: str, begun: bool
    ) -> bool:
        """Gives the run back without a result; False when the lease was lost meanwhile."""
        request = api.HandBackRequest(
            lease=api.Lease(run_id=run_id, lease_id=lease_id), reason=reason, text=text[:1000], begun=begun
        )
        answer: api.HandBackResponse = self._ask(self._stub.HandBack, request)
        return answer.counted

    def append_log(self, printed: Sequence[tuple[str, str, int, str]]) -> list[int]:
        """Tells what runs have printed: (run id, lease id, characters told before, text) each.

        Returns how many characters the registry has of each now; -1: the lease is lost, or the registry is older than this call.
        """
        told = [
            api.Printed(lease=api.Lease(run_id=run_id, lease_id=lease_id), at=at, text=text)
            for run_id, lease_id, at, text in printed
        ]
        try:
            answer: api.AppendLogResponse = self._ask(self._stub.AppendLog, api.AppendLogRequest(printed=told))
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return [-1] * len(printed)
            raise
        return list(answer.at)

    def fetch_blob(self, digest: str) -> bytes:
        """The pickle with that SHA-256 (hex), checked; raises NoSuchBlob."""
        try:
            call = self._stub.GetBlob(
                api.GetBlobRequest(digest=digest), metadata=self._metadata(), timeout=self._timeout_s * 6
            )
            blob = b"".join(chunk.data for chunk in call)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.NOT_FOUND:
                raise NoSuchBlob(digest) from error
            raise self._consequence(error) from error
        if hashlib.sha256(blob).hexdigest() != digest:
            raise TryLater(f"the registry sent other bytes than asked for (digest {digest[:12]})")
        return blob

    def next_check(self, executor: str, runtimes: Sequence[str], wait_s: float) -> api.NextCheckResponse:
        """A handler that is being registered, to be loaded in one of these runtimes; blocks for wait_s longer than others."""
        request = api.NextCheckRequest(executor=executor, runtimes=runtimes, wait_s=wait_s)
        answer: api.NextCheckResponse = self._ask(self._stub.NextCheck, request, wait_s)
        return answer

    def answer_check(self, answer: api.AnswerCheckRequest) -> None:
        """What came of it."""
        self._ask(self._stub.AnswerCheck, answer)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token()}"),)

    def _ask(self, method: Any, request: Any, longer_s: float = 0.0) -> Any:
        try:
            answer = method(request, metadata=self._metadata(), timeout=self._timeout_s + longer_s)
        except grpc.RpcError as error:
            raise self._consequence(error) from error
        self._answers(True, "")
        return answer

    def _consequence(self, error: grpc.RpcError) -> Exception:
        if isinstance(error, grpc.Call) and error.code() in AWAY:
            reason = f"registry: {error.code().name}: {error.details()}"
            self._answers(False, reason)
            return TryLater(reason)
        return error


class Blobs:
    """Pickles by digest, the last used kept in memory up to a total size; they are immutable, so never stale."""

    def __init__(self, fetch: Callable[[str], bytes], keep_bytes: int) -> None:
        self._fetch = fetch
        self._keep_bytes = keep_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, digest: str) -> bytes:
        """The pickle; asks the registry when it is not at hand. Raises TryLater, NoSuchBlob."""
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest]
        blob = self._fetch(digest)
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = blob
                self._size += len(blob)
            while self._size > self._keep_bytes and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._size -= len(old)
        return blob
