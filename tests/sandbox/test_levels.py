"""The levels at which a sandbox stands, in processes that are like the pods that have them; and refusals that say what helps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from executor.sandbox.job import SandboxUnavailable
from executor.sandbox.levels import LAYERS, REQUIRED, Level, at_least, needed, reached
from executor.sandbox.runtime import SandboxedRuntime

from .conftest import make_job
from .sandboxes import REPOSITORY, Pod

# what a pod is like -> the level that it reaches, the layers that it lacks
PODS = {
    "default": (Level.POD, {"namespaces", "root", "proc", "network"}),
    "localhost": (Level.NAMESPACES, {"proc", "keeper"}),
    "host-users": (Level.NAMESPACES, {"proc", "keeper"}),
    "unmasked": (Level.FULL, {"keeper"}),
}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a process like a container's")


@pytest.fixture(params=[pytest.param(like, marks=[root_only] if like != "default" else []) for like in PODS])
def like(request: pytest.FixtureRequest) -> Iterator[tuple[str, Pod]]:
    """Each kind of pod."""
    pod = Pod(request.param)
    yield request.param, pod
    pod.close()


def test_a_pod_reaches_the_strongest_level_that_it_can(like: tuple[str, Pod]) -> None:
    kind, pod = like
    level, lacking = PODS[kind]

    # when: anything is allowed
    stands_at, layers = pod.ask(Level.POD)

    assert stands_at is level
    assert {name for name, state in layers.items() if state != "on"} - {"cgroup"} == lacking
    assert set(layers) == set(LAYERS)


def test_a_pod_that_cannot_reach_the_bar_is_refused_with_the_setting_that_lowers_it(like: tuple[str, Pod]) -> None:
    kind, pod = like
    level, _ = PODS[kind]
    for bar in Level:
        if list(Level).index(bar) >= list(Level).index(level):
            assert pod.ask(bar)[0] is level
            continue
        with pytest.raises(SandboxUnavailable) as refusal:
            pod.ask(bar)
        lower = "pod" if level is Level.POD else "namespaces"
        assert f"EXECUTOR_SANDBOX_LEVEL={lower}" in str(refusal.value)
        assert refusal.value.layer in REQUIRED[bar]


@pytest.fixture(scope="module")
def masked() -> Iterator[Pod]:
    """A pod with the Localhost profile."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a process like a container's")
    pod = Pod("localhost")
    yield pod
    pod.close()


def test_without_a_fresh_proc_there_is_an_empty_one(masked: Pod) -> None:
    def handler(**kwargs: Any) -> str:
        import os

        return f"{os.listdir('/proc')} {os.getpid()}"

    assert masked.ask((make_job(handler), None)).text == "[] 1"


def test_a_whole_sandbox_stands_at_the_level_of_its_layers(sandbox: SandboxedRuntime) -> None:
    assert sandbox.level is Level.FULL
    assert {name for name, state in sandbox.layers.items() if state != "on"} - {"cgroup"} == {"keeper"}


def test_a_required_layer_that_a_level_has_no_use_for_does_not_keep_it_from_starting() -> None:
    for level in Level:
        assert needed(level, level) == REQUIRED[level] <= set(LAYERS)
    assert at_least(Level.FULL) == at_least(Level.NAMESPACES) == (Level.NAMESPACES,)
    assert reached(Level.NAMESPACES, REQUIRED[Level.NAMESPACES]) is Level.NAMESPACES


def test_a_layer_that_is_none_is_refused_by_naming_those_that_are(
    private_sandbox: Callable[..., SandboxedRuntime],
) -> None:
    with pytest.raises(ValueError, match="no such layers: moat; there are namespaces, root"):
        private_sandbox(required=["moat"])


@root_only
def test_the_executor_that_cannot_have_what_is_required_says_so_and_stops() -> None:
    # given: the executor's own command where there are no namespaces
    code = (
        "from tests.sandbox import in_pod; in_pod._filter(); import executor.__main__ as e; raise SystemExit(e.main())"
    )
    environment = {
        **os.environ,
        "EXECUTOR_RUNTIMES": f"py3.11={sys.executable}",
        "EXECUTOR_REGISTRY": "127.0.0.1:1",
        "EXECUTOR_TOKEN_FILE": "/dev/null",
        "EXECUTOR_BTRDB_ENDPOINT": "127.0.0.1:4411",
        "EXECUTOR_MEMORY_BYTES": str(64 << 20),
        "EXECUTOR_RESERVE_BYTES": "0",
        "TELEMETRY_PORT": "0",
    }
    code = "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); " + code

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2, done
    assert "sandbox layer 'namespaces' cannot be had" in done.stderr
    assert "EXECUTOR_SANDBOX_LEVEL=pod" in done.stderr
