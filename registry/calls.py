"""What the users' calls have in common: who calls, which handler is meant, and how handlers are told."""

from __future__ import annotations

import dataclasses
import uuid
from urllib.parse import unquote

import grpc
from sqlalchemy.orm import Session

from callers import ApiKeys, Caller
from ledger import Ledger
from ledger.audit import Actor, person
from ledger.handlers import HandlerView, NoSuchHandler, list_handlers, living
from registry.refuse import Refusal
from schemas.contracts import hook_names
from schemas.generated import eventprocapi_pb2 as api
from schemas.generated.eventprocapi_pb2_grpc import EventProcessingServiceServicer


class Calls(EventProcessingServiceServicer):
    """Every call needs an API key."""

    def __init__(self, ledger: Ledger, keys: ApiKeys) -> None:
        self._ledger = ledger
        self._keys = keys

    def _caller(self, context: grpc.ServicerContext) -> Caller:
        return self._keys.caller(context.invocation_metadata())


def actor(caller: Caller, context: grpc.ServicerContext) -> Actor:
    """The caller as the audit log has it."""
    return person(caller.user, caller.admin, address(context.peer()))


def address(peer: str) -> str:
    """The address in a peer as gRPC tells it: 'ipv4:192.0.2.7:41234', 'ipv6:%5B2001:db8::7%5D:41234'."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


def meant(session: Session, ref: api.HandlerRef) -> HandlerView:
    """The living handler that is meant. Raises NoSuchHandler; Refusal when it is not told, or the name stands for several."""
    if ref.id:
        return living(session, ref.id)
    if not ref.name:
        raise Refusal.invalid("handler", "is not told; it should be a handler's id or its name")
    check_hook(ref.hook)
    views = list_handlers(session, ref.hook, name=ref.name)
    if not views:
        where = f" on hook {ref.hook}" if ref.hook else ""
        raise NoSuchHandler(f"no handler has the name {ref.name[:100]!r}{where}")
    if len(views) > 1:
        several = ", ".join(f"{view.id} ({view.hook})" for view in views)
        raise Refusal.invalid(
            "handler", f"{ref.name!r} is the name of several: {several}; give the id, or the hook too"
        )
    return views[0]


def readable(session: Session, ref: api.HandlerRef, caller: Caller) -> HandlerView:
    """The same, when its runs, versions and code are the caller's to see; else raises Refusal."""
    view = meant(session, ref)
    check_owner(view.owner, caller, f"handler {view.name!r}")
    return view


def check_owner(owner: str, caller: Caller, what: str) -> None:
    """Raises Refusal (PERMISSION_DENIED) unless the caller is the owner or an admin."""
    if owner != caller.user and not caller.admin:
        raise Refusal.denied(f"{what} belongs to {owner}; only they or an admin may see that")


def check_hook(hook: str) -> None:
    """Raises Refusal when it is no hook; '' stands for all."""
    if hook and hook not in hook_names():
        raise Refusal.invalid("hook", f"{hook[:60]!r} is no hook; there are: {', '.join(hook_names())}")


def check_uuid(field: str, text: str, why: str) -> str:
    """The UUID in its usual spelling. Raises Refusal."""
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise Refusal.invalid(field, f"{text[:60]!r} should be a UUID{why}") from error


def place(after: str) -> tuple[int, str] | None:
    """Where a page begins: what next_page() made of it. Raises Refusal."""
    if not after:
        return None
    at, _, name = after.partition(".")
    if not at.isascii() or not at.isdigit() or not name or len(at) > 18:
        raise Refusal.invalid("after", f"{after[:60]!r} should be next_page of the page before, or empty")
    return int(at), name


def next_page(after: tuple[int, str] | None) -> str:
    """How a page's end is told; '' after the last."""
    return f"{after[0]}.{after[1]}" if after is not None else ""


def handler_message(view: HandlerView) -> api.Handler:
    """A handler as it is told to users, without its code."""
    return api.Handler(
        id=view.id, hook=view.hook, name=view.name, version=view.version, tag=view.tags,
        notify_on_success=view.notify_on_success, notify_on_failure=view.notify_on_failure,
        created_by=view.created_by, created_at=view.created_at_ms * 1_000_000,
        updated_by=view.updated_by, updated_at=view.updated_at_ms * 1_000_000, runtime=view.runtime,
        paused=view.paused, pause_reason=view.pause_reason, options=api.Options(**dataclasses.asdict(view.options)),
        requirements=view.requirements,
    )  # fmt: skip
