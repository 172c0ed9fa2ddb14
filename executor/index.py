"""Which package index handlers' requirements come from: a setting, else what pip on this machine is configured with."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PYPI = "https://pypi.org/simple"
FILES = {"pypi.org": ("files.pythonhosted.org", 443)}
"""Where an index keeps its files when not at its own host."""

_LINE = re.compile(r"^(?:global|install|:env:)\.([\w.-]+)='(.*)'$")


@dataclass(frozen=True)
class Index:
    """urls: the index, then further ones; hosts: that may be reached; ca_bundle: a PEM file of their CA, None for pip's own."""

    urls: tuple[str, ...]
    hosts: frozenset[tuple[str, int]]
    ca_bundle: Path | None = None
    trusted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What distinguishes it from another."""
        return " ".join(self.urls)

    def environment(self, proxy: str, ca_bundle: str) -> Mapping[str, str]:
        """pip's options in a sandbox. ca_bundle: where it finds that file there."""
        found = {
            "PIP_INDEX_URL": self.urls[0],
            "PIP_EXTRA_INDEX_URL": " ".join(self.urls[1:]),
            "PIP_TRUSTED_HOST": " ".join(self.trusted),
            "PIP_PROXY": proxy,
            "PIP_CERT": ca_bundle if self.ca_bundle is not None else "",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_RETRIES": "1",
            "PIP_TIMEOUT": "20",
            "PIP_PROGRESS_BAR": "off",
        }
        return {name: value for name, value in found.items() if value}


def index_of(url: str, more_hosts: str, ca_bundle: Path | None) -> Index:
    """url: of the index, '' for pip's configuration on this machine (asked for; blocks shortly).

    more_hosts: further host or host:port, comma-separated, from which its files come. Raises ValueError for what is no address.
    """
    configured = _configured() if not url else {}
    urls = (url,) if url else (configured.get("index-url", PYPI), *configured.get("extra-index-url", "").split())
    hosts = set()
    for one in urls:
        address = urlsplit(one)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"the package index {one!r} should be an address as in https://pypi.example.com/simple")
        hosts.add((address.hostname.lower(), address.port or (443 if address.scheme == "https" else 80)))
        hosts |= {FILES[address.hostname]} if address.hostname in FILES else set()
    for more in filter(None, (part.strip() for part in more_hosts.split(","))):
        name, _, port = more.partition(":")
        hosts.add((name.lower(), int(port or 443)))
    cert = ca_bundle or (Path(configured["cert"]) if configured.get("cert") else None)
    if cert is not None and not cert.exists():
        raise ValueError(f"there is no file {cert} with the CA of the package index")
    return Index(urls, frozenset(hosts), cert, tuple(configured.get("trusted-host", "").split()))


def _configured() -> dict[str, str]:
    """pip's options here: its files, then its environment, which counts more. Source: `pip config list`."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = sorted(done.stdout.splitlines(), key=lambda line: line.startswith(":env:"))
    return {found[1].lstrip("."): found[2].replace("\\n", " ") for line in lines if (found := _LINE.match(line))}
