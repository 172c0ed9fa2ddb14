"""What a run sees of the host's files: the runtime and the system's libraries, read-only; the rest is made of nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor.sandbox.environment import CA_BUNDLE, HOME, SCRATCH
from executor.sandbox.job import Access, Runtime, SandboxUnavailable
from executor.sandbox.namespaces import NOBODY

INSIDE = Path(__file__).resolve().parent.parent / "inside"

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/pki",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
"""Bound where the host has them; /etc holds nothing else of the host."""

IN_PLACE = (
    "/etc/group",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
)
"""Files of the host, or of the pod, that a run may read where it has no root of its own."""

DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
"""Not /dev/zero: mapped shared it is memory that no resident set shows."""

STASH = "/.runtime"
"""Where a runtime that lies beneath the scratch's mount point really stands."""


PACKAGES, PACKAGES_OF_ALL, EMPTY = "/packages", "/.packages", "/.empty"
"""A run's requirements; those of all, which each child covers with the empty folder."""


@dataclass(frozen=True)
class Described:
    """What an interpreter says of itself: version as '3.11.7', paths: all that imports are served from.

    lacking: those of dill and btrdb that it does not have.
    """

    version: str
    paths: tuple[str, ...]
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Root:
    """The root to build. binds: (source, target); links: path -> target; scratch_links: the same, in each run's scratch."""

    folders: tuple[str, ...]
    files: Mapping[str, str]
    links: Mapping[str, str]
    binds: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    scratch_folders: tuple[str, ...]
    scratch_links: Mapping[str, str]


def describe(runtime: Runtime) -> Described:
    """Asks the interpreter; blocks for at most 30 s. Raises SandboxUnavailable when it does not answer."""
    command = [str(runtime.python), "-s", "-B", str(INSIDE), "describe"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=30, check=True, env={"LANG": "C.UTF-8"}, cwd="/", text=True
        )
        said = json.loads(done.stdout)
        return Described(str(said["version"]), tuple(map(str, said["paths"])), tuple(map(str, said["lacking"])))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        told = getattr(error, "stderr", None) or str(error)
        raise SandboxUnavailable(
            "runtime",
            f"{runtime.python} does not answer: {told[-500:]}",
            f"Set the path of {runtime.name}'s interpreter.",
        ) from error


def check(runtime: Runtime) -> None:
    """Asks the interpreter whether it is what the runtime's name says; blocks shortly. Raises SandboxUnavailable."""
    named = re.fullmatch(r"py(\d+\.\d+)", runtime.name)
    described = describe(runtime)
    if named is not None and not described.version.startswith(f"{named[1]}."):
        raise SandboxUnavailable(
            "runtime",
            f"{runtime.name} should be Python {named[1]}, but {runtime.python} is Python {described.version}",
            f"Set the path of {runtime.name}'s interpreter.",
        )
    if "dill" in described.lacking:
        raise SandboxUnavailable(
            "runtime", f"{runtime.python} has no dill, so that it can load no handler", "Install dill in it."
        )


def root(described: Described, access: Access) -> Root:
    """The root for a runtime. Reads which system folders the host has; touches nothing."""
    links = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1"}
    links |= {"/dev/stderr": "/proc/self/fd/2", "/dev/shm": f"{SCRATCH}/.shm", "/var/tmp": SCRATCH}
    binds: list[tuple[str, str]] = []
    for path in SYSTEM:
        if Path(path).is_symlink() and path.count("/") == 1:
            links[path] = str(Path(path).readlink())
        elif Path(path).exists():
            binds.append((path, path))
    scratch_links = {}
    for number, path in enumerate(_outermost(described.paths, [source for source, _ in binds])):
        if _beneath(path, SCRATCH):
            scratch_links[path] = f"{STASH}/{number}"
            binds.append((path, scratch_links[path]))
        else:
            binds.append((path, path))
    if access.packages is not None:
        binds.append((str(access.packages.resolve()), PACKAGES_OF_ALL))
    if access.ca_bundle is not None:
        binds.append((str(access.ca_bundle.resolve()), CA_BUNDLE))
    return Root(
        folders=("/proc", "/dev", "/etc", "/var", SCRATCH, PACKAGES, EMPTY),
        files=_etc(access),
        links=links | scratch_links,
        binds=tuple(binds),
        devices=tuple(device for device in DEVICES if Path(device).exists()),
        scratch_folders=(HOME, f"{SCRATCH}/.shm"),
        scratch_links=scratch_links,
    )


def readable(built: Root) -> Sequence[str]:
    """What of the root a run may read and execute: every bind, the files of /etc, and /proc."""
    shown = [target for _, target in built.binds if target != PACKAGES_OF_ALL]
    return [*dict.fromkeys(shown), PACKAGES, "/etc", "/proc", "/dev"]


def readable_in_place(built: Root) -> Sequence[str]:
    """The same where a run has no root of its own: the host's paths, what says how names are looked up, and its own /proc."""
    here = [path for path in IN_PLACE if Path(path).exists()]
    return [*dict.fromkeys([source for source, _ in built.binds]), *here, "/proc/self"]


def addresses(access: Access) -> tuple[list[str], tuple[str, int] | None]:
    """(addresses to add to lo, where the relay's listener is bound) so that BTrDB is found where a handler looks for it.

    Raises ValueError for an endpoint that is not host:port.
    """
    if access.endpoint is None:
        return [], None
    host, port = split_endpoint(access.endpoint)
    try:
        socket.inet_aton(host)
    except OSError:
        return [], ("127.0.0.1", port)  # the hosts file names it
    return [] if host.startswith("127.") else [host], (host, port)


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """host and port. Raises ValueError saying what would be right."""
    host, separator, port = endpoint.rpartition(":")
    if not separator or not host or ":" in host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"BTrDB's endpoint {endpoint!r} should be a host name or an IPv4 address and a port, as in btrdb.example.com:4411"
        )
    return host, int(port)


def _etc(access: Access) -> dict[str, str]:
    hosts = "127.0.0.1 localhost\n"
    _, listen = addresses(access)
    if access.endpoint is not None and listen is not None and listen[0] == "127.0.0.1":
        hosts += f"127.0.0.1 {split_endpoint(access.endpoint)[0]}\n"
    return {
        "/etc/hosts": hosts,
        "/etc/host.conf": "multi on\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        "/etc/passwd": f"handler:x:{NOBODY}:{NOBODY}::{HOME}:/bin/sh\n",
        "/etc/group": f"handler:x:{NOBODY}:\n",
    }


def _outermost(paths: Sequence[str], bound: Sequence[str]) -> list[str]:
    """Paths that lie beneath no other and beneath nothing that is bound already; never the whole host."""
    found: list[str] = []
    for path in sorted({os.path.normpath(p) for p in paths}, key=len):
        if path != "/" and not any(_beneath(path, other) for other in [*bound, *found]):
            found.append(path)
    return found


def _beneath(path: str, other: str) -> bool:
    return path == other or path.startswith(other.rstrip("/") + "/")
