"""The one ordered list of steps that make a sandbox, each with why it stands where it stands."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executor.sandbox import filesystem, landlock, namespaces, rlimits, seccomp
from executor.sandbox.environment import CA_BUNDLE, SCRATCH, waiting_environment
from executor.sandbox.job import Access

WARM = ("dill", "numpy", "pandas", "btrdb", "btrdbextras.eventproc")
"""Imported by the zygote where the runtime has them."""

NO_LANDLOCK = "this kernel has no Landlock, or it is switched off (lsm= lacks landlock)"

USER_NAMESPACES = (
    "Allow user namespaces: in Kubernetes a Localhost seccomp profile that allows unshare, clone and mount; on a host "
    "sysctl user.max_user_namespaces > 0 and kernel.apparmor_restrict_unprivileged_userns=0"
)
KERNEL = "It needs Linux 5.12 or later"
LANDLOCK = "It needs Linux 5.13 or later with landlock among its security modules (lsm=)"
CGROUP = "Give the executor a control group of its own to write in (systemd: Delegate=memory; a container: a writable cgroup)"
PROC = "In Kubernetes set procMount: Unmasked with hostUsers: false"

NICENESS = 10
"""Of handlers, each and all together: the executor's own threads come first."""


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
    """prepare: once, in the zygote; isolate: in each child, before it sees a job; keep: in each run's keeper, if it has one.

    namespaces: the zygote's own, as flags of unshare(2), 0 for none. user: the host's user and group that a run becomes, 0 for
    none. off: layers that this kernel lacks, and why.
    """

    prepare: tuple[Step, ...]
    isolate: tuple[Step, ...]
    off: Mapping[str, str]
    access: Access
    namespaces: int = namespaces.OF_ZYGOTE
    keep: tuple[Step, ...] | None = None
    user: int = 0
    ca_bundle: str = CA_BUNDLE

    def wire(self) -> dict[str, Any]:
        """For the launcher."""
        return {
            "kind": "plan",
            "prepare": [step.wire() for step in self.prepare],
            "isolate": [step.wire() for step in self.isolate],
            "keep": None if self.keep is None else [step.wire() for step in self.keep],
            "warm": list(WARM) if self.access.index is None else [],
            "endpoint": self.access.endpoint if self.access.index is None else None,
            "environment": dict(waiting_environment(self.access, SCRATCH, self.ca_bundle)),
        }

    def setting_for(self, name: str, layer: str) -> str:
        """What to tell when a step failed, or any step of a layer."""
        steps = (*self.prepare, *self.isolate, *(self.keep or ()))
        for step in (*[one for one in steps if one.name == name], *[one for one in steps if one.layer == layer]):
            return step.setting
        if layer == "cgroup":
            return CGROUP
        return LANDLOCK if layer == "landlock" else USER_NAMESPACES if layer == "namespaces" else KERNEL


def make(built: filesystem.Root, access: Access, staging: str, nobody: bool, machine: str, landlock_abi: int) -> Plan:
    """The plan for a runtime.

    staging: an empty directory of the host to build the root on; nobody: whether 65534 is mapped in the zygote's namespace;
    machine: as uname(2) says; landlock_abi: 0 for none.
    """
    off = {} if landlock_abi else {"landlock": NO_LANDLOCK}
    return Plan(
        _prepare(built, staging),
        _isolate(built, access, nobody, machine, landlock_abi),
        off,
        access,
        user=namespaces.NOBODY if nobody else 0,
    )


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
            PROC,
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
    steps = [
        session(),
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
        *_packages(access),
        Step("hand over", "the relay takes the listener, the watch the scratch", "network", "hand_over", {}),
        *_give_up_privileges(outer),
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


def _packages(access: Access) -> tuple[Step, ...]:
    if access.packages is None:
        return ()
    given = {"of_all": filesystem.PACKAGES_OF_ALL, "at": filesystem.PACKAGES, "empty": filesystem.EMPTY}
    return (
        Step(
            "show its requirements",
            "this run's own, and of others' not even the names; while mounts can be made",
            "root",
            "packages",
            given,
        ),
    )


def _give_up_privileges(outer: int) -> tuple[Step, ...]:
    user = {"flags": namespaces.NEW_USER, "inner": namespaces.NOBODY, "outer": outer}
    return (
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
    )


def session(*, apart: bool = False) -> Step:
    """The first step of every child. apart: in a session of its own, where no PID namespace keeps it from the zygote's group.

    Else it stays in the zygote's, which is scheduled as one group behind the executor (inside/launch.py).
    """
    return Step(
        "begin a session",
        "no terminal, no process group, no descriptor in common with the zygote; the executor's threads come first",
        "privileges",
        "session",
        {"niceness": NICENESS, "apart": apart},
        KERNEL,
    )


def _landlock(built: filesystem.Root, access: Access, abi: int) -> Step:
    port = None if access.endpoint is None else filesystem.split_endpoint(access.endpoint)[1]
    return fence(landlock.ruleset(abi, filesystem.readable(built), built.devices, SCRATCH, port), abi, optional=True)


def fence(rules: landlock.Ruleset, abi: int, *, optional: bool) -> Step:
    """Landlock's step for a kernel with this ABI."""
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
        LANDLOCK,
        optional=optional,
    )
