"""A registration as it came -> one that is right, or a refusal that names the field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from callers import Caller
from ledger.handlers import NewHandler
from registry.options import Most, check_options
from registry.python_version import KNOWN, BlobFacts, read_blob, versions_named
from registry.refuse import Refusal
from schemas.addresses import allowed, check_address
from schemas.contracts import hook_names
from schemas.generated import eventprocapi_pb2 as api

NAME_LENGTH = 100
TAG_LENGTH = 100
TAGS = 100
REQUIREMENTS, REQUIREMENT_LENGTH = 50, 200
SOURCE_LENGTH = 200_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Also those that turn the direction of writing: a name stands in subjects of emails."""


@dataclass(frozen=True)
class Accepts:
    """What this installation takes. runtimes: those served; ambiguous: oldest or refuse; mail_domains: comma-separated, * for all.

    most: of what a handler may ask for.
    """

    runtimes: tuple[str, ...]
    ambiguous: str
    mail_domains: str
    blob_bytes: int
    most: Most


def check_registration(given: api.Registration, caller: Caller, accepts: Accepts) -> tuple[NewHandler, list[str]]:
    """What is to be registered, and notes for the user. Raises Refusal (INVALID_ARGUMENT, PERMISSION_DENIED)."""
    if given.api_key and given.api_key != caller.key:
        raise Refusal.invalid("api_key", "is not the key of the call; a handler runs under the key that registers it")
    if given.user and given.user != caller.user:
        raise Refusal.invalid("user", f"is {_short(given.user)}, but the key is {caller.user}'s; it should be empty")
    if given.dependencies.strip():
        raise Refusal.invalid("dependencies", "is not read; it should be empty: requirements say what a handler needs")
    if given.hook not in hook_names():
        raise Refusal.invalid("hook", f"{_short(given.hook)} is no hook; there are: {', '.join(hook_names())}")
    facts = _check_blob(given.blob, accepts)
    runtime, notes = _runtime(facts, given.python_version, accepts)
    handler = NewHandler(
        hook=given.hook,
        name=_name(given.name),
        owner=caller.user,
        tags=_tags(list(given.tags)),
        notify_on_success=_address("notify_on_success", given.notify_on_success, accepts),
        notify_on_failure=_address("notify_on_failure", given.notify_on_failure, accepts),
        runtime=runtime,
        blob=given.blob,
        python_version=given.python_version[:100],
        dill_version=given.dill_version[:100],
        packages={package.name[:200]: package.version[:100] for package in given.packages[:500]},
        source=given.source[:SOURCE_LENGTH].replace("\0", ""),
        first_line=max(given.first_line, 0),
        file_name=given.file_name[:1000].replace("\0", ""),
        requirements=_requirements(list(given.requirements)),
        options=check_options(given.options, accepts.most),
    )
    return handler, notes


def _name(name: str) -> str:
    if not name.strip():
        raise Refusal.invalid("name", f"is empty; it should have 1 to {NAME_LENGTH} characters")
    if len(name) > NAME_LENGTH:
        raise Refusal.invalid("name", f"has {len(name)} characters; it should have 1 to {NAME_LENGTH}")
    if _CONTROL.search(name):
        raise Refusal.invalid(
            "name", f"{_short(name)} has a line break or another control character; it should have none"
        )
    return name


def _tags(tags: list[str]) -> tuple[str, ...]:
    if len(tags) > TAGS:
        raise Refusal.invalid("tags", f"are {len(tags)}; there should be at most {TAGS}")
    tags = [tag.strip() for tag in tags]  # as those of events are
    for number, tag in enumerate(tags):
        if not tag:
            raise Refusal.invalid(f"tags[{number}]", "is empty; leave it out, or give no tags to match every event")
        if len(tag) > TAG_LENGTH:
            raise Refusal.invalid(f"tags[{number}]", f"has {len(tag)} characters; it should have at most {TAG_LENGTH}")
        if _CONTROL.search(tag):
            raise Refusal.invalid(f"tags[{number}]", f"{_short(tag)} has a control character; it should have none")
    return tuple(sorted(set(tags)))


def _requirements(given: list[str]) -> tuple[str, ...]:
    """Sorted, each once, spelled in one way: handlers that need the same share what is installed for them."""
    if len(given) > REQUIREMENTS:
        raise Refusal.invalid("requirements", f"are {len(given)}; there should be at most {REQUIREMENTS}")
    found = set()
    for number, text in enumerate(given):
        field = f"requirements[{number}]"
        if len(text) > REQUIREMENT_LENGTH:
            raise Refusal.invalid(field, f"has {len(text)} characters; it should have at most {REQUIREMENT_LENGTH}")
        try:
            one = Requirement(text)
        except InvalidRequirement as error:
            why = str(error).splitlines()[0]
            raise Refusal.invalid(
                field, f"{_short(text)} is no requirement ({why}); it should be like 'pyarrow>=14' (PEP 508)"
            ) from error
        if one.url is not None:
            raise Refusal.invalid(
                field, f"{_short(text)} names an address; packages come from this installation's index alone"
            )
        one.name = canonicalize_name(one.name)
        found.add(str(one))
    return tuple(sorted(found))


def _address(field: str, text: str, accepts: Accepts) -> str:
    if not text.strip():
        return ""
    try:
        address = check_address(text.strip())
    except ValueError as error:
        raise Refusal.invalid(field, str(error)) from error
    if not allowed(address, accepts.mail_domains):
        known = accepts.mail_domains or "none"
        raise Refusal.invalid(field, f"{address} is in a domain that no mail may go to; allowed: {known}")
    return address


def _check_blob(blob: bytes, accepts: Accepts) -> BlobFacts:
    if not blob:
        raise Refusal.invalid("blob", "is empty; it should be a function pickled with dill")
    if len(blob) > accepts.blob_bytes:
        raise Refusal.invalid(
            "blob",
            f"has {len(blob)} bytes; at most {accepts.blob_bytes} are allowed. Large data that the function refers to is pickled with it: "
            "read it inside the function instead",
        )
    try:
        facts = read_blob(blob)
    except ValueError as error:
        raise Refusal.invalid("blob", f"is not a pickle that can be read: {error}") from error
    if facts.by_reference == "":
        raise Refusal.invalid("blob", "holds no function; it should be a function pickled with dill")
    if facts.by_reference is not None:
        raise Refusal.invalid(
            "blob",
            f"holds only a reference to module {_short(facts.by_reference)}, which is not there where handlers run; define the function "
            "in the notebook, or register it with a client that pickles by value",
        )
    return facts


def _runtime(facts: BlobFacts, stated: str, accepts: Accepts) -> tuple[str, list[str]]:
    served = {runtime.removeprefix("py"): runtime for runtime in accepts.runtimes if runtime.startswith("py")}
    there_are = ", ".join(sorted(served, key=_order))
    if stated:
        try:
            minor = versions_named(stated)
        except ValueError as error:
            raise Refusal.invalid("python_version", str(error)) from error
        if facts.candidates and minor in KNOWN and minor not in facts.candidates:  # a newer one is believed
            raise Refusal.invalid(
                "python_version",
                f"is {stated}, but the pickle was made by Python {' or '.join(facts.candidates)}; they should agree",
            )
        if minor not in served:
            raise Refusal.invalid(
                "python_version", f"Python {minor} is not served here; handlers can be registered from {there_are}"
            )
        return served[minor], []
    fitting = sorted((minor for minor in facts.candidates if minor in served), key=_order)
    if not fitting:
        made_by = " or ".join(facts.candidates) or "an unknown version"
        raise Refusal.invalid(
            "blob", f"was pickled by Python {made_by}, which is not served here; there are {there_are}"
        )
    if len(facts.candidates) == 1:
        return served[fitting[0]], []
    if accepts.ambiguous == "refuse":
        raise Refusal.invalid(
            "python_version",
            f"is not given, and the pickle fits Python {', '.join(facts.candidates)}; register with a newer btrdbextras",
        )
    return served[fitting[0]], [f"the pickle fits Python {', '.join(facts.candidates)}; it will run on {fitting[0]}"]


def _order(minor: str) -> tuple[int, ...]:
    return tuple(int(part) for part in minor.split(".") if part.isdigit())


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
