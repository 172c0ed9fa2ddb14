"""What users ask of their runs: which there are, how one ended, what it has printed so far."""

from __future__ import annotations

import grpc

from callers import ApiKeys
from ledger import Ledger
from ledger.audit import HANDLER, OWNER, RUN, Act, Actor, note_reading
from ledger.handlers import owner_of
from ledger.listing import STATES, Listed, Wanted, listed, newest
from ledger.logs import read
from ledger.runs import RunView, run_view
from ledger.tables import RunRow
from registry.calls import Calls, actor, check_hook, check_owner, check_uuid, next_page, place, readable
from registry.refuse import Refusal, answered
from schemas.generated import eventprocapi_pb2 as api
from telemetry import metrics

SHOWN = 20
USUAL, MOST = 100, 500
"""Runs on a page."""


class RunCalls(Calls):
    """A user's own runs; an admin sees everybody's."""

    def __init__(self, ledger: Ledger, keys: ApiKeys, downloads: str) -> None:
        """downloads: host[:port] of the links to files, '' for none."""
        super().__init__(ledger, keys)
        self._downloads = downloads

    @answered
    def ListRuns(self, request: api.ListRunsRequest, context: grpc.ServicerContext) -> api.ListRunsResponse:
        """Of a handler or of all, the newest first."""
        caller = self._caller(context)
        check_hook(request.hook)
        if request.state and request.state not in STATES:
            raise Refusal.invalid("state", f"{request.state[:60]!r} should be one of {', '.join(STATES)}, or empty")
        if request.since_ms < 0:
            raise Refusal.invalid("since_ms", f"is {request.since_ms}; it should be ms since 1970, or 0")
        if not 0 <= request.limit <= MOST:
            raise Refusal.invalid("limit", f"is {request.limit}; it should be 1 to {MOST}, or 0 for {USUAL}")
        if request.owner and not caller.admin and request.owner != caller.user:
            raise Refusal.denied(f"owner: runs of {request.owner[:60]} are theirs and admins' to see")
        after = place(request.after)
        with metrics.ledger_seconds.labels(operation="list_runs").time(), self._ledger.read() as session:
            handler_id = None
            if request.handler.id or request.handler.name:
                owner = owner_of(session, request.handler.id) if request.handler.id else None
                if owner is None:
                    handler_id = readable(session, request.handler, caller).id
                else:  # removed ones too
                    check_owner(owner, caller, f"handler {request.handler.id}")
                    handler_id = request.handler.id
            owner = request.owner or ("" if caller.admin else caller.user)
            wanted = Wanted(owner, handler_id, request.hook, request.state, request.since_ms)
            page = newest(session, wanted, request.limit or USUAL, after)
        others = sorted({run.owner for run in page.runs} - {caller.user})
        if others:
            of = (HANDLER, handler_id) if handler_id is not None else (OWNER, owner or "all")
            self._note(actor(caller, context), Act.LIST_RUNS, *of, of=others[:SHOWN])
        return api.ListRunsResponse(runs=[_line(run) for run in page.runs], next_page=next_page(page.after))

    @answered
    def GetRun(self, request: api.GetRunRequest, context: grpc.ServicerContext) -> api.GetRunResponse:
        """One run, with its log, its files and its attempts."""
        caller = self._caller(context)
        run_id = check_uuid("id", request.id, ", as ListRuns and emails tell it")
        with metrics.ledger_seconds.labels(operation="get_run").time(), self._ledger.read() as session:
            short = listed(session, run_id)
            if short is None:
                raise Refusal.missing(f"no run has the id {run_id}")
            check_owner(short.owner, caller, f"run {run_id}")
            view = run_view(session, run_id)
        if view is None:
            raise Refusal.missing(f"the event of run {run_id} is no longer kept")
        if view.owner != caller.user:
            self._note(actor(caller, context), Act.READ_RUN, RUN, view.run_id, owner=view.owner)
        return self._whole(short, view)

    @answered
    def ReadLog(self, request: api.ReadLogRequest, context: grpc.ServicerContext) -> api.ReadLogResponse:
        """The log from a place on, also while the run is going on."""
        caller = self._caller(context)
        run_id = check_uuid("id", request.id, ", as ListRuns and emails tell it")
        if request.at < 0:
            raise Refusal.invalid("at", f"is {request.at}; it should be 0, or what the answer before said")
        with metrics.ledger_seconds.labels(operation="read_log").time(), self._ledger.read() as session:
            row = session.get(RunRow, run_id)
            if row is None:
                raise Refusal.missing(f"no run has the id {run_id}")
            check_owner(row.owner, caller, f"run {run_id}")
            piece, owner = read(session, row, request.attempt, request.at), row.owner
        if owner != caller.user:
            self._note(actor(caller, context), Act.READ_LOG, RUN, run_id, owner=owner)
        return api.ReadLogResponse(
            text=piece.text, attempt=piece.attempt, at=piece.at, state=piece.state, ended=piece.ended
        )

    def _note(self, who: Actor, act: Act, kind: str, thing: str | int, **detail: object) -> None:
        """What an admin reads of others, before they have it."""
        with self._ledger.write() as session:
            note_reading(session, who, act, kind, thing, **detail)

    def _whole(self, short: Listed, view: RunView) -> api.GetRunResponse:
        error = view.error
        files = [
            api.RunFile(
                name=upload.name,
                size=upload.size,
                link=f"https://{self._downloads}/{upload.code}" if self._downloads else "",
            )
            for upload in view.uploads
        ]
        attempts = [
            api.RunAttempt(
                number=number,
                executor=attempt.executor,
                claimed_at_ms=attempt.claimed_at_ms,
                ended_at_ms=attempt.ended_at_ms or 0,
                reason=attempt.reason,
            )
            for number, attempt in enumerate(view.attempts, 1)
        ]
        return api.GetRunResponse(
            run=_line(short), text=view.text, error_type=error.type if error else "",
            error_message=error.message if error else "", error_traceback=error.traceback if error else "",
            log=view.log, log_truncated=view.log_truncated, cpu_s=view.cpu_s, peak_memory_bytes=view.peak_memory_bytes,
            files=files, attempts=attempts, replay_of=view.replay_of or "", runtime=view.runtime, tags=view.event_tags,
        )  # fmt: skip


def _line(run: Listed) -> api.RunLine:
    return api.RunLine(
        id=run.run_id, handler_id=run.handler_id, handler=run.handler_name, version=run.handler_version, hook=run.hook,
        request_id=run.request_id, subject=run.subject, owner=run.owner, state=run.state, queued_at_ms=run.queued_at_ms,
        started_at_ns=run.started_at_ns, ended_at_ns=run.ended_at_ns, error=run.error, attempts=run.attempts,
    )  # fmt: skip
