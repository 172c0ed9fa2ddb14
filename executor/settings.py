"""The executor's own options, from the environment (EXECUTOR_*)."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from executor.index import Index, index_of
from executor.packages import Bounds
from executor.sandbox.levels import Level

MIB = 1024 * 1024


class RequirementsSettings(BaseSettings):
    """Of handlers' requirements. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="EXECUTOR_")

    index_url: str = Field(
        "",
        description="package index that requirements of handlers come from; empty: pip's configuration on this machine",
    )
    index_hosts: str = Field("", description="further host or host:port where its files are, comma-separated")
    index_ca: Path | None = Field(None, description="PEM file of its CA")
    packages_dir: Path = Field(
        Path(tempfile.gettempdir()) / f"eventproc-packages-{os.geteuid()}",
        description="where installed requirements are kept",
    )
    packages_bytes: int = Field(4096 * MIB, ge=0, description="of all that is kept; the longest unused goes first")
    requirements_bytes: int = Field(512 * MIB, ge=MIB, description="of one handler's requirements, installed")
    install_s: float = Field(300.0, gt=0, description="time limit of an install")

    def index(self) -> Index:
        """Where packages come from; asks pip when no setting says. Raises ValueError."""
        return index_of(self.index_url, self.index_hosts, self.index_ca)

    def bounds(self, memory_bytes: int) -> Bounds:
        """Of what is installed; an install is done in a slot, and takes its memory."""
        return Bounds(self.packages_bytes, self.requirements_bytes, self.install_s, memory_bytes)


class ExecutorSettings(RequirementsSettings):
    """Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="EXECUTOR_", populate_by_name=True)

    name: str = Field(default_factory=socket.gethostname, description="for people; each process also has a boot id")
    group: str = "eventproc-executor"
    instance: str | None = Field(None, description="static membership: a name that stays over restarts")
    runtimes: str = Field(description="name=interpreter pairs, comma-separated: py3.11=/opt/py3.11/bin/python")
    slots: int = Field(2, ge=1, description="handlers that run at a time")
    warm: int = Field(2, ge=0, description="children made ready ahead, per runtime that is awake")
    resident: int = Field(
        1, ge=0, description="so many runtimes, the first named, are awake from start to end; others wake with a run"
    )
    idle_s: float = Field(900.0, gt=0, description="another runtime sleeps again after so long without a run")

    zygote_age_s: float = Field(6 * 3600.0, gt=0, description="after which another zygote takes its place")
    zygote_growth_bytes: int = Field(
        256 * MIB, ge=MIB, description="of a zygote's memory, after which the same happens"
    )

    registry: str = Field(description="host:port of the registry's internal service")
    registry_ca: Path | None = Field(None, description="PEM file of its CA; none: no TLS")
    token_file: Path = Field(description="file with the service token")
    registry_timeout_s: float = Field(10.0, gt=0)
    answer_bytes: int = Field(64 * MIB, description="limit of one answer of the registry")

    btrdb_endpoint: str = Field(description="host:port that handlers connect to")
    btrdb_ca_bundle: Path | None = Field(None, description="PEM file of BTrDB's CA, given to handlers")
    downloads_endpoint: str = Field("", description="host of download links, DOWNLOADS_ENDPOINT in a handler")

    files: str = Field(
        "",
        validation_alias="EVENTPROC_FILES",
        description="where files of handlers are kept: file:///path, s3://bucket/path, ...; empty: they are not",
    )
    upload_bytes: int = Field(128 * MIB, ge=1024, description="of one file that a handler uploads")

    wall_s: float = Field(900.0, gt=0, description="a handler's time limit when it has none of its own")
    warning_s: float = Field(10.0, ge=0, description="warned so long before the kill")
    memory_bytes: int = Field(
        2048 * MIB, ge=64 * MIB, description="a handler's memory limit when it has none of its own"
    )
    reserve_bytes: int = Field(512 * MIB, ge=0, description="left for the executor itself and its zygotes")
    scratch_bytes: int = Field(512 * MIB, ge=MIB)
    output_bytes: int = Field(256 * 1024, ge=1024, description="of a handler's log that is kept")
    processes: int = Field(64, ge=1)

    sandbox_level: Level = Field(
        Level.NAMESPACES, description="the weakest level of the sandbox at which it starts: full, namespaces or pod"
    )
    required_layers: str = Field(
        "", description="sandbox layers without which it does not start, comma-separated, beyond those of the level"
    )
    cgroups: bool = Field(True, description="whether runs get control groups for their memory where they can be made")
    scratch_dir: Path | None = Field(
        None, description="where runs have their folders at level pod; none: the system's folder for temporary files"
    )

    renew_s: float = Field(30.0, gt=0, description="how often leases are renewed")
    grace_s: float = Field(3600.0, ge=0, description="how long begun runs may go on after SIGTERM")
    flush_timeout_s: float = Field(10.0, gt=0)
    blob_cache_bytes: int = Field(256 * MIB, ge=0)

    def interpreters(self) -> dict[str, Path]:
        """The runtimes served: name -> interpreter. Raises ValueError saying what a pair should look like."""
        found = {}
        for pair in filter(None, (p.strip() for p in self.runtimes.split(","))):
            name, sep, path = pair.partition("=")
            if not sep or not name or not path:
                raise ValueError(
                    f"EXECUTOR_RUNTIMES: {pair!r} should be name=interpreter, as in py3.11=/usr/bin/python3.11"
                )
            if not Path(path).exists():
                raise ValueError(f"EXECUTOR_RUNTIMES: {name}: there is no interpreter {path}")
            found[name] = Path(path)
        if not found:
            raise ValueError(
                "EXECUTOR_RUNTIMES is empty; it should name at least one runtime, as in py3.11=/usr/bin/python3.11"
            )
        return found


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this container (cgroup v2 or v1 limit), or else the machine, may use.

    root: where /sys and /proc are found. Sources: cgroups(7), proc_meminfo(5).
    """
    limits = []
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = root / name
        if path.exists() and (text := path.read_text().strip()) != "max":
            limits.append(int(text))
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    return min(limits)


def check_memory(settings: ExecutorSettings, available: int) -> None:
    """Raises ValueError when slots x limit + reserve does not fit: on cgroup v2 one burst would kill the whole container."""
    wanted = settings.slots * settings.memory_bytes + settings.reserve_bytes
    if wanted > available:
        raise ValueError(
            f"{settings.slots} slots x {settings.memory_bytes // MIB} MiB + {settings.reserve_bytes // MIB} MiB reserve is more than "
            f"the {available // MIB} MiB that there are; lower EXECUTOR_SLOTS or EXECUTOR_MEMORY_BYTES, or raise the container's limit"
        )
