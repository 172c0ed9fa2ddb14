"""The steps where no namespace can be had: Landlock holds files, the filter the network, a keeper the processes."""

from __future__ import annotations

import base64

from executor.sandbox import filesystem, landlock, rlimits, seccomp
from executor.sandbox import namespaces as ids
from executor.sandbox.environment import CA_BUNDLE, SCRATCH
from executor.sandbox.job import Access, SandboxUnavailable
from executor.sandbox.plan import KERNEL, LANDLOCK, NO_LANDLOCK, Plan, Step, fence, session

SIGNALS_SINCE = 6
"""Landlock's ABI that keeps a run's signals and abstract sockets to itself."""


def make(built: filesystem.Root, access: Access, nobody: bool, machine: str, landlock_abi: int) -> Plan:
    """The plan for a runtime.

    nobody: whether the executor may become 65534; machine: as uname(2) says; landlock_abi: 0 for none.
    Raises SandboxUnavailable without Landlock.
    """
    if not landlock_abi:
        raise SandboxUnavailable("landlock", NO_LANDLOCK, LANDLOCK)
    return Plan(
        prepare=(_adopt("what a keeper's death leaves behind comes to the zygote, which ends it"),),
        keep=_keep(landlock_abi),
        isolate=_isolate(built, access, nobody, machine, landlock_abi),
        off={},
        access=access,
        namespaces=0,
        user=ids.NOBODY if nobody else 0,
        ca_bundle=CA_BUNDLE if access.ca_bundle is None else str(access.ca_bundle.resolve()),
    )


def _adopt(why: str) -> Step:
    return Step("adopt orphans", why, "keeper", "subreaper", {}, KERNEL)


def _no_new_privileges() -> Step:
    return Step(
        "no new privileges",
        "set-user-id programs stay harmless; Landlock asks for it",
        "privileges",
        "no_new_privileges",
        {},
        KERNEL,
    )


def _keep(abi: int) -> tuple[Step, ...]:
    steps = [_adopt("double forks and daemons stay below the keeper, by whom they are counted and killed")]
    if abi >= SIGNALS_SINCE:
        steps += [
            _no_new_privileges(),
            Step(
                "fence the keeper's signals",
                "what it kills is its run and nothing else, in one act; the run itself is fenced once more, below it",
                "keeper",
                "fence_signals",
                {"scoped": landlock.SCOPE_SIGNAL},
                LANDLOCK,
            ),
        ]
    return tuple(steps)


def _isolate(built: filesystem.Root, access: Access, nobody: bool, machine: str, abi: int) -> tuple[Step, ...]:
    rules = landlock.ruleset(abi, filesystem.readable_in_place(built), built.devices, SCRATCH, None)
    program = base64.b64encode(seccomp.program(machine, namespaces=False)).decode()
    return (
        session(apart=True),
        Step("hand over", "the watch takes the scratch", "memory", "hand_over", {}, KERNEL),
        Step(
            "become nobody",
            "no user of the pod, where the executor may choose",
            "privileges",
            "user",
            {"user": ids.NOBODY if nobody else 0},
            KERNEL,
        ),
        Step("drop capabilities", "those of a privileged executor", "privileges", "capabilities", {}, KERNEL),
        _no_new_privileges(),
        Step(
            "limit resources",
            "what does not depend on the run",
            "rlimits",
            "rlimits",
            {"limits": dict(rlimits.fixed())},
            KERNEL,
        ),
        fence(rules, abi, optional=False),
        Step(
            "close descriptors",
            "the zygote's own; after Landlock, which needs some",
            "privileges",
            "descriptors",
            {},
            KERNEL,
        ),
        Step(
            "filter system calls",
            "last: no Internet socket, no process but its own by id, and what is refused at every level",
            "seccomp",
            "seccomp",
            {"program": program},
            KERNEL,
        ),
    )
