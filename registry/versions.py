"""What users do with a handler after it was registered: its versions and their code, back to one, pause, resume, replay."""

from __future__ import annotations

import dataclasses
import uuid

import grpc
import structlog

from ledger import replay
from ledger.audit import HANDLER, Act, note
from ledger.handlers import blob
from ledger.versions import VersionView, rollback, set_paused, version, versions
from registry.calls import Calls, actor, check_owner, check_uuid, handler_message, meant, next_page, place, readable
from registry.refuse import Refusal, answered
from schemas.generated import eventprocapi_pb2 as api
from telemetry import metrics

log = structlog.get_logger()

EVENTS = 200
"""Looked at in one call of Replay."""
ONLY = ("", replay.MISSING, replay.FAILED)


class VersionCalls(Calls):
    """Its owner or an admin."""

    @answered
    def ListVersions(self, request: api.ListVersionsRequest, context: grpc.ServicerContext) -> api.ListVersionsResponse:
        """The newest first, without their code."""
        caller = self._caller(context)
        with metrics.ledger_seconds.labels(operation="list_versions").time(), self._ledger.read() as session:
            found = versions(session, readable(session, request.handler, caller).id)
        return api.ListVersionsResponse(versions=[_version(one) for one in found])

    @answered
    def GetSource(self, request: api.GetSourceRequest, context: grpc.ServicerContext) -> api.GetSourceResponse:
        """The source, and the pickle when it is asked for."""
        caller = self._caller(context)
        with metrics.ledger_seconds.labels(operation="get_source").time(), self._ledger.write() as session:
            view = readable(session, request.handler, caller)
            one = version(session, view.id, None if request.version < 0 else request.version)
            code = blob(session, one.digest) if request.with_blob else b""
            note(
                session, actor(caller, context), Act.READ_CODE, HANDLER, view.id,
                name=view.name, owner=view.owner, version=one.version, pickle=request.with_blob,
            )  # fmt: skip
        return api.GetSourceResponse(
            source=one.source, file_name=one.file_name, first_line=one.first_line, version=one.version, blob=code or b""
        )

    @answered
    def Rollback(self, request: api.RollbackRequest, context: grpc.ServicerContext) -> api.RollbackResponse:
        """A new version of what an old one was."""
        caller = self._caller(context)
        with metrics.ledger_seconds.labels(operation="rollback").time(), self._ledger.write() as session:
            view = meant(session, request.handler)
            view = rollback(session, view.id, request.version, caller.user, caller.admin)
            told = {"name": view.name, "owner": view.owner, "to": request.version, "version": view.version}
            note(session, actor(caller, context), Act.ROLLBACK, HANDLER, view.id, **told)
        log.info("rolled back", handler=view.name, handler_id=view.id, to=request.version, by=caller.user)
        return api.RollbackResponse(handler=handler_message(view))

    @answered
    def Pause(self, request: api.PauseRequest, context: grpc.ServicerContext) -> api.PauseResponse:
        """Events do not meet it from now on."""
        return api.PauseResponse(handler=self._set_paused(request.handler, True, context))

    @answered
    def Resume(self, request: api.ResumeRequest, context: grpc.ServicerContext) -> api.ResumeResponse:
        """Events meet it again."""
        return api.ResumeResponse(handler=self._set_paused(request.handler, False, context))

    @answered
    def Replay(self, request: api.ReplayRequest, context: grpc.ServicerContext) -> api.ReplayResponse:
        """Past events once more, or what that would be."""
        caller = self._caller(context)
        if request.only not in ONLY:
            raise Refusal.invalid(
                "only", f"{request.only[:60]!r} should be {replay.MISSING}, {replay.FAILED} or empty (all)"
            )
        for field, at in (("since_ms", request.since_ms), ("until_ms", request.until_ms)):
            if at < 0:
                raise Refusal.invalid(field, f"is {at}; it should be ms since 1970, or 0")
        if request.until_ms and request.until_ms <= request.since_ms:
            raise Refusal.invalid(
                "until_ms", f"is {request.until_ms}; it should be after since_ms ({request.since_ms})"
            )
        if request.dry_run and not request.replay_id:
            replay_id = str(uuid.uuid4())
        else:
            why = " of your own choosing, the same for all pages: with it nothing is run twice"
            replay_id = check_uuid("replay_id", request.replay_id, why)
        after = place(request.after)
        opened = self._ledger.read() if request.dry_run else self._ledger.write()
        with metrics.ledger_seconds.labels(operation="replay").time(), opened as session:
            view = meant(session, request.handler)
            check_owner(view.owner, caller, f"handler {view.name!r}")
            since, until = request.since_ms or None, request.until_ms or None
            wanted = replay.Selection(view.hook, "", since, until, view.id, request.only)
            replay.check(session, wanted)
            make = replay.plan if request.dry_run else replay.replay
            page = make(session, wanted, replay_id, after, EVENTS)
            made = sum(not one.there for one in page.planned)
            if made and not request.dry_run:
                told = {"name": view.name, "owner": view.owner, "replay_id": replay_id, "runs": made}
                note(session, actor(caller, context), Act.REPLAY, HANDLER, view.id, **told)
        if not request.dry_run:
            log.info("replayed", handler=view.name, handler_id=view.id, by=caller.user, replay_id=replay_id, runs=made)
        runs = [
            api.Replayed(
                run_id=one.run_id,
                request_id=one.request_id,
                subject=one.subject,
                replay_of=one.replay_of or "",
                was_there=one.there,
            )
            for one in page.planned
        ]
        return api.ReplayResponse(runs=runs, events=page.events, next_page=next_page(page.after))

    def _set_paused(self, ref: api.HandlerRef, paused: bool, context: grpc.ServicerContext) -> api.Handler:
        caller = self._caller(context)
        with metrics.ledger_seconds.labels(operation="pause").time(), self._ledger.write() as session:
            view = meant(session, ref)
            view = set_paused(session, view.id, paused, caller.user, caller.admin)
            act = Act.PAUSE if paused else Act.RESUME
            note(session, actor(caller, context), act, HANDLER, view.id, name=view.name, owner=view.owner)
        log.info("paused" if paused else "resumed", handler=view.name, handler_id=view.id, by=caller.user)
        return handler_message(view)


def _version(one: VersionView) -> api.HandlerVersion:
    return api.HandlerVersion(
        handler_id=one.handler_id, version=one.version, present=one.present, created_at_ms=one.created_at_ms,
        created_by=one.created_by, runtime=one.runtime, python_version=one.python_version, tags=one.tags,
        notify_on_success=one.notify_on_success, notify_on_failure=one.notify_on_failure,
        options=api.Options(**dataclasses.asdict(one.options)), digest=one.digest, requirements=one.requirements,
        has_source=bool(one.source),
    )  # fmt: skip
