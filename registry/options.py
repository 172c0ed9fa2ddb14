"""What a registration asks for of its runs -> options within what the operator allows, or a refusal that names the field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ledger.handlers import EACH, NOTIFY, Options
from registry.refuse import Refusal
from schemas.generated import eventprocapi_pb2 as api

MIB = 1024 * 1024
LEAST_TIMEOUT_S = 1.0
LEAST_MEMORY = 64 * MIB
DESCRIPTION_LENGTH = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Most:
    """What the operator allows. per_handler: runs of one handler at a time, 0 for no cap."""

    timeout_s: float = 14_400.0
    memory_bytes: int = 2048 * MIB
    retries: int = 10
    retry_delay_s: float = 86_400.0
    per_handler: int = 0


def check_options(given: api.Options, most: Most) -> Options:
    """The options as the ledger keeps them. Raises Refusal (INVALID_ARGUMENT) naming the field, its value and the limit."""
    timeout_s = _within("options.timeout_s", given.timeout_s, LEAST_TIMEOUT_S, most.timeout_s, "s")
    memory = _within("options.memory_bytes", given.memory_bytes, LEAST_MEMORY, most.memory_bytes, "bytes")
    cap = most.per_handler or 10_000
    at_once = _within("options.max_concurrency", given.max_concurrency, 1, cap, "runs at a time")
    retries = _within("options.retries", given.retries, 1, most.retries, "attempts after the first")
    delay_s = _within("options.retry_delay_s", given.retry_delay_s, 0, most.retry_delay_s, "s")
    if delay_s and not retries:
        raise Refusal.invalid(
            "options.retry_delay_s",
            f"is {delay_s:g}, but options.retries is 0: nothing is tried again; ask for at least one retry",
        )
    if given.notify and given.notify not in NOTIFY:
        raise Refusal.invalid("options.notify", f"{given.notify[:60]!r} should be one of {', '.join(NOTIFY)}")
    return Options(
        timeout_s=timeout_s,
        memory_bytes=int(memory),
        max_concurrency=int(at_once),
        retries=int(retries),
        retry_delay_s=delay_s,
        notify=given.notify or EACH,
        description=_description(given.description),
    )


def check_memory(options: Options, given_bytes: int) -> None:
    """Raises Refusal (INVALID_ARGUMENT) when an executor gives a run less than it asks for. given_bytes: 0 for not known."""
    if 0 < given_bytes < options.memory_bytes:
        raise Refusal.invalid(
            "options.memory_bytes",
            f"is {options.memory_bytes}; executors give a run at most {given_bytes} bytes here ({given_bytes / MIB:.0f} MiB); "
            "ask for no more, or have the operator raise EXECUTOR_MEMORY_BYTES",
        )


def _within(field: str, value: float, least: float, most: float, unit: str) -> float:
    if value == 0:
        return 0.0
    if not (math.isfinite(value) and least <= value <= most):
        none = "; 0 is for none" if field == "options.retries" else "; 0 leaves it to the installation"
        bounds = (
            f"{_plain(least)} to {_plain(most)}" if most >= least else f"nothing: at most {_plain(most)} are allowed"
        )
        raise Refusal.invalid(field, f"is {_plain(value)}; it should be {bounds} {unit} here{none}")
    return value


def _plain(value: float) -> str:
    return f"{int(value):d}" if math.isfinite(value) and value == int(value) else f"{value:g}"


def _description(text: str) -> str:
    text = text.strip()
    if len(text) > DESCRIPTION_LENGTH:
        raise Refusal.invalid(
            "options.description", f"has {len(text)} characters; it should have at most {DESCRIPTION_LENGTH}"
        )
    if _CONTROL.search(text):
        raise Refusal.invalid(
            "options.description", "has a control character; lines and tabs are fine, others should not be in it"
        )
    return text
