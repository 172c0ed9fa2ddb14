"""Email addresses: what counts as one, and who may be written to. Checked at registration and again at sending."""

from __future__ import annotations

import re

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# RFC 5321 section 4.1.2, Mailbox, without quoted local parts and address literals: nobody's mail needs them here
_ADDRESS = re.compile(rf"(?P<local>{_ATEXT}(?:\.{_ATEXT})*)@(?P<domain>{_LABEL}(?:\.{_LABEL})*)")
_MOST = 254  # RFC 5321 section 4.5.3.1.3: a path has 256 octets, two of them its angle brackets
_MOST_LOCAL = 64  # section 4.5.3.1.1


def check_address(text: str) -> str:
    """The text when it is one plain email address, as in alice@example.com; nothing else may stand in it, no line end either.

    Raises ValueError saying what would be right.
    """
    found = _ADDRESS.fullmatch(text)
    if not found:
        shown = ascii(text if len(text) <= 80 else text[:77] + "...")
        raise ValueError(f"should be one email address such as alice@example.com, is {shown}")
    if len(text) > _MOST or len(found["local"]) > _MOST_LOCAL:
        raise ValueError(
            f"should have at most {_MOST} characters, at most {_MOST_LOCAL} before the @; has {len(text)} and {len(found['local'])}"
        )
    return text


def allowed(address: str, domains: str) -> bool:
    """Whether the setting EVENTPROC_MAIL_DOMAINS lets an address be written to. Case does not count.

    address: one that check_address took. domains: comma-separated; example.com is that domain alone, *.example.com its
    subdomains, * every domain; empty: nobody may be written to.
    """
    domain = address.rpartition("@")[2].lower()
    for rule in filter(None, (part.strip().lower() for part in domains.split(","))):
        if rule == "*" or rule == domain:
            return True
        if rule.startswith("*.") and domain.endswith(rule[1:]) and domain != rule[1:]:
            return True
    return False
