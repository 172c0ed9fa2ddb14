"""The users' service: what btrdbextras asks (wire page: eventprocapi)."""

from __future__ import annotations

import grpc
import structlog

from callers import ApiKeys
from ledger import Ledger
from ledger.credentials import seal
from ledger.handlers import HandlerView, list_handlers, register, remove
from registry.checks import Checks
from registry.refuse import Refusal, answered
from registry.validate import Accepts, check_registration
from schemas.contracts import hook_names
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import EventProcessingServiceServicer
from telemetry import metrics

log = structlog.get_logger()


class EventProcessing(EventProcessingServiceServicer):
    """Anyone with a valid key lists; only its owner replaces a handler; its owner or an admin removes it."""

    def __init__(self, ledger: Ledger, keys: ApiKeys, accepts: Accepts, checks: Checks) -> None:
        """checks: where a handler is loaded before it is registered."""
        self._checks = checks
        self._ledger = ledger
        self._keys = keys
        self._accepts = accepts

    @answered
    def ListHooks(self, request: api.ListHooksRequest, context: grpc.ServicerContext) -> api.ListHooksResponse:
        """The hooks that there are."""
        self._keys.caller(context.invocation_metadata())
        return api.ListHooksResponse(hooks=[api.Hook(name=name) for name in hook_names()])

    @answered
    def ListHandlers(self, request: api.ListHandlersRequest, context: grpc.ServicerContext) -> api.ListHandlersResponse:
        """The living handlers, without their code: of one hook, or of all."""
        self._keys.caller(context.invocation_metadata())
        if request.hook and request.hook not in hook_names():
            raise Refusal.invalid("hook", f"{request.hook[:60]!r} is no hook; there are: {', '.join(hook_names())}")
        with metrics.ledger_seconds.labels(operation="list_handlers").time(), self._ledger.read() as session:
            views = list_handlers(session, request.hook)
        return api.ListHandlersResponse(handlers=[_handler(view) for view in views])

    @answered
    def Register(self, request: api.RegisterRequest, context: grpc.ServicerContext) -> api.RegisterResponse:
        """Makes a handler or its next version, and seals the key that it runs under."""
        caller = self._keys.caller(context.invocation_metadata())
        new, notes = check_registration(request.registration, caller, self._accepts)
        told = self._checks.ask(new.runtime, new.hook, new.blob, new.requirements)
        if told.loads is False:
            raise Refusal.invalid("blob", f"does not load in {new.runtime}: {told.text}")
        check = f"loads in {new.runtime}" if told.loads else f"not checked: {told.text}"
        notes += [] if told.loads else [check]
        notes += [f"the function imports {name!r}, which {new.runtime} does not have" for name in told.lacking]
        with metrics.ledger_seconds.labels(operation="register").time(), self._ledger.write() as session:
            view = register(session, new, caller.user)
            seal(session, self._ledger, caller.user, caller.key)
        log.info(
            "registered",
            handler=view.name,
            handler_id=view.id,
            version=view.version,
            owner=view.owner,
            runtime=view.runtime,
            check=check,
        )
        return api.RegisterResponse(handler=_handler(view), notes=notes, check=check)

    @answered
    def Deregister(self, request: api.DeregisterRequest, context: grpc.ServicerContext) -> api.DeregisterResponse:
        """Removes a handler; what has begun goes on, what waits is cancelled."""
        caller = self._keys.caller(context.invocation_metadata())
        with metrics.ledger_seconds.labels(operation="remove").time(), self._ledger.write() as session:
            view = remove(session, request.id, caller.user, caller.admin)
        log.info("removed", handler=view.name, handler_id=view.id, by=caller.user, owner=view.owner)
        return api.DeregisterResponse(id=view.id)


def _handler(view: HandlerView) -> api.Handler:
    return api.Handler(
        id=view.id, hook=view.hook, name=view.name, version=view.version, tag=view.tags,
        notify_on_success=view.notify_on_success, notify_on_failure=view.notify_on_failure,
        created_by=view.created_by, created_at=view.created_at_ms * 1_000_000,
        updated_by=view.updated_by, updated_at=view.updated_at_ms * 1_000_000, runtime=view.runtime,
    )  # fmt: skip
