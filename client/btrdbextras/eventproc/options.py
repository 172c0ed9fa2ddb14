"""How a handler is to be run, as register() takes it, checked as far as that can be done here."""

import re
from typing import Any, List, Sequence

from btrdbextras.eventproc import since, wire

NOTIFY = ("each", "digest", "failures", "none")
DESCRIPTION_LENGTH = 2000
_REQUIREMENT = re.compile(r"\s*[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\s*(\[[^\]]*\])?\s*([(<>=!~].*)?(;.*)?$")


def message(
    timeout: Any, memory: Any, max_concurrency: Any, retries: Any, retry_delay: Any, notify: Any, description: Any
) -> Any:
    """The message Options; None when nothing was asked for. Raises TypeError, ValueError naming the option."""
    given = {
        "timeout_s": _positive("timeout", timeout, since.seconds),
        "memory_bytes": _positive("memory", memory, since.size),
        "max_concurrency": _count("max_concurrency", max_concurrency, 1),
        "retries": _count("retries", retries, 0),
        "retry_delay_s": None if retry_delay is None else since.seconds("retry_delay", retry_delay),
        "notify": _notify(notify),
        "description": _description(description),
    }
    if given["retry_delay_s"] and not given["retries"]:
        raise ValueError(
            "retry_delay says how long to wait before a retry, and retries asks for none; give retries=1 or more"
        )
    asked = {name: value for name, value in given.items() if value is not None}
    return wire.message("Options")(**asked) if asked else None


def requirements(given: Any) -> List[str]:
    """What a handler needs beyond its runtime, each like 'pyarrow>=14'. Raises TypeError, ValueError."""
    if given is None:
        return []
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, set, frozenset)):
        raise TypeError("requirements should be a list of str, as in requirements=['pyarrow>=14']; it is %r" % (given,))
    for one in given:
        if not isinstance(one, str):
            raise TypeError("requirements should be a list of str; one of them is a %s" % type(one).__name__)
        if "://" in one or re.match(r"[^;]*@", one):
            raise ValueError(
                "requirement %r names an address; packages come from the platform's index alone, as in 'pyarrow>=14'"
                % one
            )
        if not _REQUIREMENT.match(one):
            raise ValueError("requirement %r should be a package's name and versions, as in 'pyarrow>=14'" % one)
    return [one.strip() for one in given]


def _positive(field: str, value: Any, read: Any) -> Any:
    if value is None:
        return None
    found = read(field, value)
    if not found:
        raise ValueError("%s is 0; leave it out to have what the platform gives everybody" % field)
    return found


def _count(field: str, value: Any, least: int) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("%s should be an int; it is %r (%s)" % (field, value, type(value).__name__))
    if not least <= value < 2**31:
        most = "" if value < least else ", and less than 2**31"
        raise ValueError("%s is %d; it should be %d or more%s" % (field, value, least, most))
    return value


def _notify(value: Any) -> Any:
    if value is not None and value not in NOTIFY:
        raise ValueError(
            "notify %r should be 'each' (an email a run), 'digest' (runs told of together), 'failures' (those alone) or 'none'"
            % (value,)
        )
    return value


def _description(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise TypeError("description should be a str; it is a %s" % type(value).__name__)
    if value is not None and len(value) > DESCRIPTION_LENGTH:
        raise ValueError("description has %d characters; it should have at most %d" % (len(value), DESCRIPTION_LENGTH))
    return value
