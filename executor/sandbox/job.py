"""What goes into a sandboxed run and what comes out: plain data and the errors of the road back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.records import Outcome, RunError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
    """Of one run. Sizes in bytes, times in seconds.

    wall_s: from the job's hand-over to the kill; warning_s: so long before it the handler is warned (half of wall_s at most).
    memory_bytes: of the whole process tree, its scratch counted in. output_bytes: of the log that is kept (head and tail).
    text_bytes: of the returned text that is kept. scratch_bytes: of the handler's files. upload_bytes: of one uploaded file.
    """

    wall_s: float = 900.0
    warning_s: float = 10.0
    memory_bytes: int = 2 * GIB
    output_bytes: int = 256 * KIB
    text_bytes: int = 256 * KIB
    scratch_bytes: int = 512 * MIB
    processes: int = 64
    open_files: int = 256
    uploads: int = 32
    upload_bytes: int = 128 * MIB


@dataclass(frozen=True)
class Install:
    """What pip is to install, in a sandbox of its own: requirements (PEP 508), and pip's options as its environment.

    What comes of it is one upload, a tar file of what a site-packages folder holds.
    """

    requirements: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """One run of one handler.

    blob: the dill pickle. arguments: the event's fields, JSON-able. documented: the names that every handler gets (btrdb comes
    on top); others only when its signature names them. source, first_line: the handler's own, for tracebacks, where known.
    only_load: the handler is loaded and its signature checked, but it is not called and BTrDB is not asked; the text names what
    its code imports and the runtime lacks, comma-separated.
    traceparent: goes with each of its calls to BTrDB, so that the server's part is seen in the run's trace; '' for none.
    packages: the folder of Access.packages whose requirements the handler sees, '' for none. install: no handler at all, but pip.
    """

    run_id: str
    blob: bytes = field(repr=False)
    arguments: Mapping[str, object] = field(repr=False)
    documented: tuple[str, ...]
    api_key: str = field(repr=False)
    limits: Limits
    handler: str
    source: str | None = field(default=None, repr=False)
    first_line: int = 0
    only_load: bool = False
    traceparent: str = ""
    packages: str = ""
    install: Install | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Access:
    """What a run may reach.

    endpoint: BTrDB's host:port as handlers see it and as the relay connects to it; None: no BTrDB, `btrdb` is None.
    ca_bundle: a PEM file shown to handlers as BTRDB_CA_BUNDLE. downloads_endpoint: the host of download links.
    packages: the folder of installed requirements, one folder a lock, of which a run sees its own alone.
    index: for a sandbox in which pip runs: the hosts behind `endpoint`, which is then a proxy; nothing is imported there.
    """

    endpoint: str | None
    ca_bundle: Path | None = None
    downloads_endpoint: str = ""
    packages: Path | None = None
    index: frozenset[tuple[str, int]] | None = None


@dataclass(frozen=True)
class Runtime:
    """A Python with its packages: name as in a task ('py3.11'), python its interpreter."""

    name: str
    python: Path


@dataclass(frozen=True)
class CollectedUpload:
    """A file that the handler gave to upload_file.

    code: 32 hex digits; size in bytes; path: the copy in the spool, the caller's to delete (None when there is no spool).
    """

    code: str
    name: str
    size: int
    path: Path | None


@dataclass(frozen=True)
class Ended:
    """How a run ended. Times in ns since the epoch; texts are valid UTF-8 without NUL, the run's API key masked.

    started_at_ns: just before the handler's first line; the hand-over of the job when it never got there.
    begun_after_s: from the job's hand-over to that line, None when it never got there.
    at_limit: whether it was ended for one of its limits: time, memory, files, processes.
    """

    outcome: Outcome
    text: str
    error: RunError | None
    log: str
    log_truncated: bool
    uploads: tuple[CollectedUpload, ...]
    started_at_ns: int
    ended_at_ns: int
    cpu_s: float
    peak_memory_bytes: int
    begun_after_s: float | None = None
    at_limit: bool = False


class BtrdbAway(Exception):
    """The child could not reach BTrDB before the handler's first line: the run is handed back."""


class RequirementsRefused(Exception):
    """A handler's requirements cannot be had here; the text is for its owner and names what is missing or in conflict."""


class SandboxLost(Exception):
    """The run was killed by its executor, or its zygote died: it has no outcome and is handed back."""


class SandboxUnavailable(Exception):
    """A required layer cannot be had here.

    layer: its name; why: the failing step and what the kernel said; setting: what would help, or lower the bar.
    """

    def __init__(self, layer: str, why: str, setting: str) -> None:
        super().__init__(layer, why, setting)
        self.layer = layer
        self.why = why
        self.setting = setting

    def __str__(self) -> str:
        return f"sandbox layer {self.layer!r} cannot be had: {self.why}. {self.setting}"
