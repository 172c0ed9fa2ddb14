"""The executors' service: claims, leases, blobs. Users' keys leave the ledger here alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import grpc
import structlog
from sqlalchemy.orm import Session

from ledger import Ledger, now_ms
from ledger.claims import (
    Answer,
    Claimant,
    ClaimedRun,
    Later,
    Lease,
    claim,
    event_bodies,
    hand_back,
    present,
    renew,
    report,
)
from ledger.credentials import unseal
from ledger.executors import Executor
from ledger.handlers import blob
from ledger.load_checks import Verdict
from ledger.logs import append
from ledger.rules import Rules
from registry.auth import ServiceTokens
from registry.checks import Checks
from registry.refuse import Refusal, answered
from schemas.generated import executorapi_pb2 as api
from schemas.generated.executorapi_pb2_grpc import ExecutorServiceServicer
from telemetry import metrics, traces
from telemetry.bounded import owner_label

log = structlog.get_logger()

CHUNK = 1024 * 1024
RUNS_AT_ONCE = 1000
ROOM_BESIDES = 1024 * 1024  # for what is in an answer beside events and sources
NO_ROOM = Later(0.0, "the events of the other runs fill the answer; the sweeper invites again")


class _TooMuch(Exception):
    """An answer would be too large; fitting: the runs of which it would not be."""

    def __init__(self, fitting: list[str]) -> None:
        super().__init__("too much for one answer")
        self.fitting = fitting


class Executors(ExecutorServiceServicer):
    """Every call needs a service token."""

    def __init__(self, ledger: Ledger, tokens: ServiceTokens, rules: Rules, answer_bytes: int, checks: Checks) -> None:
        """answer_bytes: of the largest answer that server and executors take; checks: what registrations wait for."""
        self._checks = checks
        self._answer_bytes = answer_bytes
        self._ledger = ledger
        self._tokens = tokens
        self._rules = rules

    @answered
    def Claim(self, request: api.ClaimRequest, context: grpc.ServicerContext) -> api.ClaimResponse:
        """Answers for the run ids, in order; each event's body once."""
        self._tokens.check(context.invocation_metadata())
        if not request.boot_id or not request.nonce:
            raise Refusal.invalid("boot_id, nonce", "should both be given")
        if len(request.run_ids) > RUNS_AT_ONCE:
            raise Refusal.invalid("run_ids", f"are {len(request.run_ids)}; there should be at most {RUNS_AT_ONCE}")
        try:
            return self._claim(request, list(request.run_ids))
        except _TooMuch as error:  # nothing has been leased
            return self._claim(request, error.fitting)

    def _claim(self, request: api.ClaimRequest, run_ids: list[str]) -> api.ClaimResponse:
        claimant = Claimant(request.boot_id, request.nonce, request.executor[:200])
        keys: dict[str, str] = {}
        with metrics.ledger_seconds.labels(operation="claim").time(), self._ledger.write() as session:
            _present(session, request)
            answers = claim(session, claimant, run_ids, self._rules)
            runs = [answer for _, answer in answers if isinstance(answer, ClaimedRun)]
            bodies = event_bodies(session, [run.event_key for run in runs])
            self._check_fits(answers, bodies)
            for owner in {run.owner for run in runs}:
                keys[owner] = unseal(session, self._ledger, owner) or ""
            now = now_ms(session) if runs else 0
        for run in runs:
            wait_s = max(now - run.queued_at_ms, 0) / 1000
            metrics.queue_wait_seconds.labels(owner=owner_label(run.owner)).observe(wait_s)
            if run.traceparent:
                began, until = run.queued_at_ms * 1_000_000, now * 1_000_000
                traces.record("wait", run.traceparent, began, until, run_id=run.run_id, attempt=run.attempt)
        answered = dict(answers)
        return api.ClaimResponse(
            answers=[_answer(run_id, answered.get(run_id, NO_ROOM), keys) for run_id in request.run_ids],
            events=[api.EventBody(key=key, body=body) for key, body in bodies.items()],
            lease_s=self._rules.lease_s,
        )

    def _check_fits(self, answers: Sequence[tuple[str, Answer]], bodies: Mapping[str, bytes]) -> None:
        """Raises _TooMuch when the answer would be larger than gRPC takes: large events, claimed many at a time."""
        room = self._answer_bytes - ROOM_BESIDES
        seen: set[str] = set()
        fitting: list[str] = []
        for run_id, answer in answers:
            if isinstance(answer, ClaimedRun):
                room -= len(answer.source.encode()) + (0 if answer.event_key in seen else len(bodies[answer.event_key]))
                seen.add(answer.event_key)
            if room < 0 and fitting:
                raise _TooMuch(fitting)
            fitting.append(run_id)

    @answered
    def Renew(self, request: api.RenewRequest, context: grpc.ServicerContext) -> api.RenewResponse:
        """Prolongs leases; says which are lost."""
        self._tokens.check(context.invocation_metadata())
        leases = [Lease(lease.run_id, lease.lease_id) for lease in request.leases]
        with metrics.ledger_seconds.labels(operation="renew").time(), self._ledger.write() as session:
            _present(session, request)
            lost = renew(session, leases, self._rules)
        return api.RenewResponse(lost_run_ids=lost, lease_s=self._rules.lease_s)

    @answered
    def Report(self, request: api.ReportRequest, context: grpc.ServicerContext) -> api.ReportResponse:
        """The run's result is in Kafka."""
        self._tokens.check(context.invocation_metadata())
        with metrics.ledger_seconds.labels(operation="report").time(), self._ledger.write() as session:
            return api.ReportResponse(counted=report(session, Lease(request.lease.run_id, request.lease.lease_id)))

    @answered
    def HandBack(self, request: api.HandBackRequest, context: grpc.ServicerContext) -> api.HandBackResponse:
        """Back to the queue without a result."""
        self._tokens.check(context.invocation_metadata())
        lease = Lease(request.lease.run_id, request.lease.lease_id)
        reason = api.HandBackReason.Name(request.reason)
        with metrics.ledger_seconds.labels(operation="hand_back").time(), self._ledger.write() as session:
            counted = hand_back(session, lease, reason, request.text, request.begun, self._rules)
        log.info("handed back", run_id=lease.run_id, reason=reason, text=request.text, counted=counted)
        return api.HandBackResponse(counted=counted)

    @answered
    def AppendLog(self, request: api.AppendLogRequest, context: grpc.ServicerContext) -> api.AppendLogResponse:
        """What runs have printed since; how much of each the ledger has now."""
        self._tokens.check(context.invocation_metadata())
        if len(request.printed) > RUNS_AT_ONCE:
            raise Refusal.invalid("printed", f"are {len(request.printed)}; there should be at most {RUNS_AT_ONCE}")
        had: dict[int, int] = {}
        in_order = sorted(enumerate(request.printed), key=lambda one: one[1].lease.run_id)  # against deadlocks
        with metrics.ledger_seconds.labels(operation="append_log").time(), self._ledger.write() as session:
            for number, one in in_order:
                had[number] = append(session, Lease(one.lease.run_id, one.lease.lease_id), one.at, one.text)
        return api.AppendLogResponse(at=[had[number] for number in range(len(had))])

    @answered
    def NextCheck(self, request: api.NextCheckRequest, context: grpc.ServicerContext) -> api.NextCheckResponse:
        """A handler to load for a registration; blocks for wait_s at most."""
        self._tokens.check(context.invocation_metadata())
        asked, again_after_s = self._checks.take(list(request.runtimes), request.wait_s)
        if asked is None:
            return api.NextCheckResponse(again_after_s=again_after_s)
        check = api.Check(
            id=asked.id, runtime=asked.runtime, hook=asked.hook, blob=asked.blob, requirements=asked.requirements
        )
        return api.NextCheckResponse(check=check)

    @answered
    def AnswerCheck(self, request: api.AnswerCheckRequest, context: grpc.ServicerContext) -> api.AnswerCheckResponse:
        """Whether it loads."""
        self._tokens.check(context.invocation_metadata())
        loads = {api.LOADS: True, api.REFUSED: False}.get(request.verdict)
        self._checks.answer(request.id, Verdict(loads, request.text, tuple(request.lacking), request.memory_bytes))
        return api.AnswerCheckResponse()

    @answered
    def GetBlob(self, request: api.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[api.BlobChunk]:
        """The pickle of that digest."""
        self._tokens.check(context.invocation_metadata())
        with metrics.ledger_seconds.labels(operation="blob").time(), self._ledger.read() as session:
            body = blob(session, request.digest)
        if body is None:
            raise Refusal.missing(f"no pickle has the digest {request.digest[:64]!r}")
        whole = body
        return (api.BlobChunk(data=whole[at : at + CHUNK]) for at in range(0, len(whole), CHUNK))


def _present(session: Session, request: api.ClaimRequest | api.RenewRequest) -> None:
    if request.boot_id and request.slots > 0:
        present(session, request.boot_id, Executor(request.executor[:200], request.slots, tuple(request.runtimes)))


def _answer(run_id: str, answer: Answer, keys: dict[str, str]) -> api.Answer:
    if isinstance(answer, Later):
        return api.Answer(run_id=run_id, later=api.Later(after_s=answer.after_s, reason=answer.reason))
    if not isinstance(answer, ClaimedRun):
        return api.Answer(run_id=run_id, drop=api.Drop(reason=answer.reason))
    run = api.Run(
        lease_id=answer.lease_id, event_key=answer.event_key, hook=answer.hook, request_id=answer.request_id,
        handler_name=answer.handler_name, handler_id=answer.handler_id, handler_version=answer.handler_version,
        owner=answer.owner, api_key=keys[answer.owner], blob_digest=answer.blob_digest, source=answer.source,
        first_line=answer.first_line, file_name=answer.file_name, attempt=answer.attempt, wall_s=answer.wall_s,
        memory_bytes=answer.memory_bytes, runtime=answer.runtime, requirements=answer.requirements, traceparent=answer.traceparent,
    )  # fmt: skip
    return api.Answer(run_id=run_id, run=run)
