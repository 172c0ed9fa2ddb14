"""The users' service: what btrdbextras asks (wire page: eventprocapi)."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import structlog

from callers import ApiKeys
from ledger import Ledger
from ledger.audit import HANDLER, OWNER, Act, note
from ledger.handlers import DIGEST, FAILURES, HandlerView, get_handler, list_handlers, register, remove
from ledger.keys import rekey
from registry.calls import actor, check_hook, handler_message
from registry.checks import Checks
from registry.options import check_memory
from registry.refuse import Refusal, answered
from registry.runs import RunCalls
from registry.validate import Accepts, check_registration
from registry.versions import VersionCalls
from schemas.contracts import hook_names
from schemas.generated import eventprocapi_pb2 as api
from telemetry import metrics

log = structlog.get_logger()

LIST_BYTES = 3 << 20
"""A longer list goes without descriptions: clients in the field take 4 MiB (gRPC's default)."""


class EventProcessing(RunCalls, VersionCalls):
    """Anyone with a valid key lists; only its owner replaces a handler; its owner or an admin removes it."""

    def __init__(self, ledger: Ledger, keys: ApiKeys, accepts: Accepts, checks: Checks, downloads: str = "") -> None:
        """checks: where a handler is loaded before it is registered; downloads: host[:port] of the links to files, '' for none."""
        super().__init__(ledger, keys, downloads)
        self._checks = checks
        self._accepts = accepts

    @answered
    def ListHooks(self, request: api.ListHooksRequest, context: grpc.ServicerContext) -> api.ListHooksResponse:
        """The hooks that there are, and the runtimes."""
        self._caller(context)
        hooks = [api.Hook(name=name) for name in hook_names()]
        return api.ListHooksResponse(hooks=hooks, runtimes=self._accepts.runtimes)

    @answered
    def ListHandlers(self, request: api.ListHandlersRequest, context: grpc.ServicerContext) -> api.ListHandlersResponse:
        """The living handlers, without their code: of one hook, or of all."""
        self._caller(context)
        check_hook(request.hook)
        with metrics.ledger_seconds.labels(operation="list_handlers").time(), self._ledger.read() as session:
            views = list_handlers(session, request.hook)
        answer = api.ListHandlersResponse(handlers=[handler_message(view) for view in views])
        if answer.ByteSize() > LIST_BYTES:
            for one in answer.handlers:
                one.options.description = ""
        return answer

    @answered
    def Register(self, request: api.RegisterRequest, context: grpc.ServicerContext) -> api.RegisterResponse:
        """Makes a handler or its next version, and seals the key that it runs under."""
        caller = self._caller(context)
        new, notes = check_registration(request.registration, caller, self._accepts)
        told = self._checks.ask(new.runtime, new.hook, new.blob, new.requirements)
        if told.loads is False:
            raise Refusal.invalid("blob", f"does not load in {new.runtime}: {told.text}")
        check_memory(new.options, told.memory_bytes)
        check = f"loads in {new.runtime}" if told.loads else f"not checked: {told.text}"
        notes += [] if told.loads else [check]
        elsewhere = f"which {new.runtime} does not have: requirements=[...] asks for packages"
        notes += [f"the function imports {name!r}, {elsewhere}" for name in told.lacking]
        with metrics.ledger_seconds.labels(operation="register").time(), self._ledger.write() as session:
            view = register(session, new, caller.user)
            resumed = rekey(session, self._ledger, caller.user, caller.key).resumed
            view = get_handler(session, view.id) or view
            note(
                session, actor(caller, context), Act.REGISTER, HANDLER, view.id,
                name=view.name, hook=view.hook, version=view.version,
            )  # fmt: skip
        notes += _notes(view, resumed)
        log.info(
            "registered",
            handler=view.name,
            handler_id=view.id,
            version=view.version,
            owner=view.owner,
            runtime=view.runtime,
            check=check,
        )
        return api.RegisterResponse(handler=handler_message(view), notes=notes, check=check)

    @answered
    def Rekey(self, request: api.RekeyRequest, context: grpc.ServicerContext) -> api.RekeyResponse:
        """Seals the call's key for all handlers of the caller."""
        caller = self._caller(context)
        with metrics.ledger_seconds.labels(operation="rekey").time(), self._ledger.write() as session:
            done = rekey(session, self._ledger, caller.user, caller.key)
            note(session, actor(caller, context), Act.REKEY, OWNER, caller.user, handlers=done.handlers)
        log.info("rekeyed", owner=caller.user, handlers=done.handlers, resumed=len(done.resumed))
        return api.RekeyResponse(handlers=done.handlers, resumed=[handler_message(view) for view in done.resumed])

    @answered
    def Deregister(self, request: api.DeregisterRequest, context: grpc.ServicerContext) -> api.DeregisterResponse:
        """Removes a handler; what has begun goes on, what waits is cancelled."""
        caller = self._caller(context)
        with metrics.ledger_seconds.labels(operation="remove").time(), self._ledger.write() as session:
            view = remove(session, request.id, caller.user, caller.admin)
            note(session, actor(caller, context), Act.REMOVE, HANDLER, view.id, name=view.name, owner=view.owner)
        log.info("removed", handler=view.name, handler_id=view.id, by=caller.user, owner=view.owner)
        return api.DeregisterResponse(id=view.id)


def _notes(view: HandlerView, resumed: Sequence[HandlerView]) -> list[str]:
    """What people should know of a handler that has just been registered."""
    notes = []
    if resumed:
        names = ", ".join(sorted(one.name for one in resumed))
        notes.append(f"resumed, as BTrDB refused the key before: {names}")
    if view.paused:
        notes.append(f"{view.name!r} is paused: no event runs it until it is resumed")
    told = view.notify_on_failure or (view.notify_on_success and view.options.notify != FAILURES)
    if view.options.notify in (DIGEST, FAILURES) and not told:
        notes.append(f"notify is {view.options.notify!r}, but no address is given for it: nobody is told")
    return notes
