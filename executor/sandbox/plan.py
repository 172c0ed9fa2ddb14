"""The one ordered list of steps that make a sandbox, each with why it stands where it stands."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executor.sandbox import filesystem, landlock, namespaces, rlimits, seccomp
from executor.sandbox.environment import SCRATCH, connection_environment
from executor.sandbox.job import Access

LAYERS = ("namespaces", "root", "proc", "network", "privileges", "rlimits", "landlock", "seccomp", "memory")
"""Every layer that is reported, strongest first."""

REQUIRED = frozenset(LAYERS) - {"proc", "landlock"}
"""The safe default. Without proc a run has an empty /proc; Landlock stands behind the namespaces as a second fence."""

WARM = ("dill", "numpy", "pandas", "btrdb", "btrdbextras.eventproc")
"""Imported by the zygote where the runtime has them."""

USER_NAMESPACES = (
    "Allow user namespaces: in Kubernetes a Localhost seccomp profile that allows unshare, clone and mount; on a host "
    "sysctl user.max_user_namespaces > 0 and kernel.apparmor_restrict_unprivileged_userns=0. There is no level without them"
)
KERNEL = "It needs Linux 5.12 or later"
OPTIONAL = "Name the layers that you do require, without {layer!r}, in EXECUTOR_REQUIRED_LAYERS to run without it"


@dataclass(frozen=True)
class Step:
    """name, why: for people. call, given: a function of inside/steps.py and its arguments. setting: what helps when it fails."""

    name: str
    why: str
    layer: str
    call: str
    given: Mapping[str, Any]
    setting: str = USER_NAMESPACES
    optional: bool = False

    def wire(self) -> dict[str, Any]:
        """For the zygote."""
        return {
            "name": self.name,
            "layer": self.layer,
            "call": self.call,
            "given": dict(self.given),
            "optional": self.optional,
        }


@dataclass(frozen=True)
class Plan:
    """prepare: once, in the zygote; isolate: in each child, before it sees a job. off: layers that this kernel lacks."""

    prepare: tuple[Step, ...]
    isolate: tuple[Step, ...]
    off: Mapping[str, str]
    access: Access

    def wire(self) -> dict[str, Any]:
        """For the launcher."""
        return {
            "kind": "plan",
            "prepare": [step.wire() for step in self.prepare],
            "isolate": [step.wire() for step in self.isolate],
            "warm": list(WARM),
            "btrdb": {
                "endpoint": self.access.endpoint,
                "environment": dict(connection_environment(self.access)),
            },
        }

    def setting_for(self, name: str, layer: str) -> str:
        """What to tell when a step failed."""
        for step in (*self.prepare, *self.isolate):
            if step.name == name:
                return step.setting
        return USER_NAMESPACES if layer == "namespaces" else KERNEL


def make(built: filesystem.Root, access: Access, staging: str, nobody: bool, machine: str, landlock_abi: int) -> Plan:
    """The plan for a runtime.

    staging: an empty directory of the host to build the root on; nobody: whether 65534 is mapped in the zygote's namespace;
    machine: as uname(2) says; landlock_abi: 0 for none.
    """
    off = (
        {} if landlock_abi else {"landlock": "this kernel has no Landlock, or it is switched off (lsm= lacks landlock)"}
    )
    return Plan(_prepare(built, staging), _isolate(built, access, nobody, machine, landlock_abi), off, access)


def _prepare(built: filesystem.Root, staging: str) -> tuple[Step, ...]:
    scratch = {"folders": list(built.scratch_folders), "links": dict(built.scratch_links), "user": 0}
    given = {
        "at": staging,
        "folders": list(built.folders),
        "files": dict(built.files),
        "links": dict(built.links),
        "binds": [list(pair) for pair in built.binds],
        "devices": list(built.devices),
    }
    return (
        Step("keep mounts private", "else the host would see ours", "namespaces", "private_mounts", {}),
        Step("build the root", "read-only binds of the runtime and nothing else", "root", "root", given, KERNEL),
        Step(
            "mount the zygote's proc",
            "a child may mount its own only where one is to be seen; before the old root goes",
            "proc",
            "proc",
            {"at": f"{staging}/proc"},
            OPTIONAL.format(layer="proc") + ", or set procMount: Unmasked with hostUsers: false",
            optional=True,
        ),
        Step(
            "enter the root",
            "the host's files are gone, for the zygote's imports too",
            "root",
            "enter",
            {"at": staging},
        ),
        Step(
            "mount a scratch for imports", "some modules look for one; each child covers it", "root", "scratch", scratch
        ),
        Step("name the host", "the real name is nobody's business", "namespaces", "hostname", {"name": "sandbox"}),
    )


def _isolate(built: filesystem.Root, access: Access, nobody: bool, machine: str, landlock_abi: int) -> tuple[Step, ...]:
    outer = namespaces.NOBODY if nobody else 0
    lo, listen = filesystem.addresses(access)
    scratch = {"folders": list(built.scratch_folders), "links": dict(built.scratch_links), "user": outer}
    user = {"flags": namespaces.NEW_USER, "inner": namespaces.NOBODY, "outer": outer}
    steps = [
        Step(
            "enter own namespaces",
            "the PID namespace is new by the fork; these hold mounts, network, ipc and names of this run",
            "namespaces",
            "unshare",
            {"flags": namespaces.OF_CHILD},
        ),
        Step("mount the scratch", "the only place to write, gone with the run", "root", "scratch", scratch),
        Step("mount a fresh proc", "only this run's processes are to be seen", "proc", "proc", {"at": "/proc"}),
        Step(
            "bring up the network",
            "lo, and a listener where the handler looks for BTrDB; needs capabilities in the namespaces' owner",
            "network",
            "network",
            {"addresses": lo, "listen": listen},
        ),
        Step("hand over", "the relay takes the listener, the watch the scratch", "network", "hand_over", {}),
        Step("become nobody", "no user of the host, where it may be mapped", "privileges", "user", {"user": outer}),
        Step(
            "enter own user namespace",
            "after all mounts: from here on no capability reaches them, and RLIMIT_NPROC counts this run alone",
            "privileges",
            "user_namespace",
            user,
        ),
        Step("drop capabilities", "those that the new user namespace gave", "privileges", "capabilities", {}),
        Step(
            "no new privileges",
            "set-user-id programs stay harmless; Landlock asks for it",
            "privileges",
            "no_new_privileges",
            {},
        ),
        Step(
            "limit resources",
            "what does not depend on the run",
            "rlimits",
            "rlimits",
            {"limits": dict(rlimits.fixed())},
        ),
    ]
    if landlock_abi:
        steps.append(_landlock(built, access, landlock_abi))
    steps += [
        Step(
            "close descriptors", "the zygote's own; after Landlock, which needs some", "privileges", "descriptors", {}
        ),
        Step(
            "filter system calls",
            "last: it takes away what the steps before needed",
            "seccomp",
            "seccomp",
            {"program": base64.b64encode(seccomp.program(machine)).decode()},
        ),
    ]
    return tuple(steps)


def _landlock(built: filesystem.Root, access: Access, abi: int) -> Step:
    port = None if access.endpoint is None else filesystem.split_endpoint(access.endpoint)[1]
    rules = landlock.ruleset(abi, filesystem.readable(built), built.devices, SCRATCH, port)
    return Step(
        "fence with Landlock",
        "after no new privileges, before descriptors close",
        "landlock",
        "landlock",
        {
            "files": rules.handled_files,
            "network": rules.handled_network,
            "scoped": rules.scoped,
            "size": 8 if abi < 4 else 16 if abi < 6 else 24,
            "paths": [list(pair) for pair in rules.paths],
            "ports": [list(pair) for pair in rules.ports],
        },
        OPTIONAL.format(layer="landlock"),
        optional=True,
    )
