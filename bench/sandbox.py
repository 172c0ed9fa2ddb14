"""make bench-sandbox: single-use sandboxed runs beside a bare fork, Celery, RQ and bubblewrap, and how fast a handler starts."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dill
import structlog

from bench.btrdb import PORT, server
from bench.figures import percentile, write
from bench.fork import VALUES, pickled
from bench.peers import run as peers
from bench.peers.handler import rms
from devstack.addresses import free_address
from devstack.certificates import make_certificates
from devstack.keys import make_keys
from executor.sandbox.environment import zygote_environment
from executor.sandbox.job import Access, Ended, Job, Limits, Runtime
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
WARM = 2
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
RUNS = 400
WARM_UP = 20
JOBS = {"celery_shared": 400, "rq": 100, "celery_fresh": 20, "bwrap": 6}
"""Of each peer in each round: about five seconds' worth."""
STARTS = 200

GOALS = {
    "ratio_fork": 0.8,
    "ratio_rq": 5.0,
    "ratio_celery_fresh": 45.0,
    "ratio_celery_shared": 1.0,
    "ratio_bwrap": 200.0,
}
START_GOALS = {"handler_start_p50_ms": 3.0, "handler_start_p99_ms": 15.0}

Rates = dict[str, list[float]]


def job(blob: bytes, arguments: Mapping[str, object], key: str = "none") -> Job:
    """A job with the limits that runs have by default."""
    return Job(
        run_id=str(uuid.uuid4()),
        blob=blob,
        arguments=arguments,
        documented=tuple(arguments),
        api_key=key,
        limits=Limits(),
        handler="bench",
    )


def succeeded(ended: Ended) -> Ended:
    """The same; ends the bench when the run did not succeed."""
    if ended.outcome is not Outcome.SUCCEEDED:
        raise SystemExit(f"a run ended as {ended.outcome}: {ended.error}")
    return ended


@contextlib.contextmanager
def sandbox(access: Access) -> Iterator[SandboxedRuntime]:
    """A warm runtime of this interpreter, every layer required."""
    runtime = SandboxedRuntime(Runtime("py3.11", Path(sys.executable)), access, warm=WARM)
    runtime.start()
    off = [f"{name} {state}" for name, state in runtime.layers.items() if state != "on"]
    print(
        f"• sandbox at level {runtime.level}; {len(runtime.layers) - len(off)} layers on, {'; '.join(off)}", flush=True
    )
    try:
        yield runtime
    finally:
        runtime.close()


class Forks:
    """The floor's process (bench/fork.py), in the zygote's environment."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-m", "bench.fork"],
            cwd=ROOT,
            env={**zygote_environment(), "PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def rate(self, kind: str, count: int) -> float:
        """Forks a second, two at a time; kind: 'call', or 'load' when the child unpickles the handler first."""
        assert self._process.stdin is not None and self._process.stdout is not None
        answers = []
        for number in (WARM_UP, count):
            self._process.stdin.write(f"{kind} {number}\n")
            self._process.stdin.flush()
            answers.append(float(self._process.stdout.readline()))
        return count / answers[-1]

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=10)


def sandboxed_rate(runtime: SandboxedRuntime, blob: bytes, count: int) -> float:
    """Runs a second, from two threads, each run in a child of its own."""

    def one(_: int) -> None:
        ended = succeeded(runtime.run(job(blob, {"values": VALUES})))
        assert abs(float(ended.text) - rms(VALUES)) < 1e-9

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, range(WARM_UP)))
        began = time.monotonic()
        list(pool.map(one, range(count)))
        return count / (time.monotonic() - began)


def measure_rates() -> tuple[Rates, dict[str, str]]:
    """(name -> runs a second in each round, peer -> why it could not be measured): all of them in each round, one after another."""
    blob = pickled()
    settings = dict(zygote_environment())
    rates: Rates = {}
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(sandbox(Access(None)))
        forks = Forks()
        stack.callback(forks.close)
        cold = dill.dumps((dill.loads(blob), VALUES), recurse=True)
        measures: dict[str, Callable[[], float]] = {
            "sandbox": lambda: sandboxed_rate(runtime, blob, RUNS),
            "fork": lambda: forks.rate("call", RUNS),
            "fork_loading": lambda: forks.rate("load", RUNS),
            "bwrap": lambda: peers.bubblewrap(cold, JOBS["bwrap"], settings),
        }
        try:
            url = stack.enter_context(peers.redis())
        except peers.Skipped as why:
            skipped |= dict.fromkeys(("celery_shared", "celery_fresh", "rq"), str(why))
        else:
            for name, peer in (
                ("celery_shared", peers.celery_shared),
                ("rq", peers.rq),
                ("celery_fresh", peers.celery_fresh),
            ):
                measures[name] = lambda name=name, peer=peer: peer(url, JOBS[name], settings)  # type: ignore[misc]
        for number in range(ROUNDS):
            for name, measured in measures.items():
                if name in skipped:
                    continue
                try:
                    rates.setdefault(name, []).append(measured())
                except peers.Skipped as why:
                    skipped[name] = str(why)
                    continue
                print(f"  round {number + 1}: {name:14} {rates[name][-1]:8.1f} /s", flush=True)
    return rates, skipped


def clock(**_: Any) -> str:
    """The handler whose start is measured: says when its first line ran."""
    import time

    return str(time.monotonic_ns())


def starts(runtime: SandboxedRuntime, key: str) -> Sequence[float]:
    """Milliseconds from a task in hand to its handler's first line; the pool is full before each."""
    clock.__module__ = "__main__"
    blob = dill.dumps(clock, recurse=True)
    took = []
    for number in range(WARM_UP + STARTS):
        deadline = time.monotonic() + 30
        while runtime.warm() < WARM and time.monotonic() < deadline:
            time.sleep(0.002)
        began = time.monotonic_ns()
        ended = succeeded(runtime.run(job(blob, {"File": "bench.zip"}, key)))
        if number >= WARM_UP:
            took.append((int(ended.text) - began) / 1e6)
    return took


def measure_starts() -> dict[str, float]:
    """Without a connection to BTrDB, and with one to the development server over TLS."""
    figures = {}
    with sandbox(Access(None)) as runtime:
        took = starts(runtime, "none")
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        figures[f"handler_start_{name}_ms"] = percentile(took, share)
    with tempfile.TemporaryDirectory(prefix="bench-sandbox-") as name:
        folder = Path(name)
        address = free_address(PORT)
        tls = make_certificates(folder / "tls", address)
        key = make_keys({"alice": ()}, folder / "keys.json")["alice"]
        given = {"ADDRESS": address, "PORT": str(PORT), "DATA": str(folder / "data"), "CERT": str(tls.cert)}
        given |= {"KEY": str(tls.key), "CA": str(tls.ca), "KEYS_FILE": str(folder / "keys.json")}
        environment = {**os.environ, **{f"DEVSTACK_BTRDB_{name}": value for name, value in given.items()}}
        with server(folder, address, environment), sandbox(Access(f"{address}:{PORT}", tls.ca)) as runtime:
            took = starts(runtime, key)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        figures[f"handler_start_btrdb_{name}_ms"] = percentile(took, share)
    return figures


def summed_up(rates: Rates, skipped: Mapping[str, str]) -> dict[str, float | int | str]:
    """Medians over the rounds; each ratio is the median of the rounds' own, with the lowest and the highest."""
    ours = rates["sandbox"]
    figures: dict[str, float | int | str] = {
        "runs_per_s": statistics.median(ours),
        "runs_per_s_lowest": min(ours),
        "runs_per_s_highest": max(ours),
    }
    for name in ("fork", "fork_loading", "rq", "celery_fresh", "celery_shared", "bwrap"):
        if name in skipped:
            figures[f"{name}_per_s"] = figures[f"ratio_{name}"] = f"skipped: {skipped[name]}"
            continue
        ratios = [own / other for own, other in zip(ours, rates[name], strict=True)]
        figures[f"{name}_per_s"] = statistics.median(rates[name])
        figures[f"ratio_{name}"] = statistics.median(ratios)
        figures[f"ratio_{name}_lowest"], figures[f"ratio_{name}_highest"] = min(ratios), max(ratios)
    return figures


def tell_goals(figures: Mapping[str, float | int | str]) -> None:
    """One line for each goal: met or missed, and by how much."""
    for name, goal in GOALS.items():
        value = figures[name]
        if isinstance(value, float):
            print(f"{'met   ' if value >= goal else 'missed'} {name} {value:.2f}, goal: at least {goal:g}")
        else:
            print(f"unknown {name}: {value}")
    for name, goal in START_GOALS.items():
        value = float(figures[name])
        print(f"{'met   ' if value < goal else 'missed'} {name} {value:.2f}, goal: under {goal:g}")


def main() -> int:
    """Measures, prints, writes bench/results/sandbox.json."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    peers.prepare()
    before = os.getloadavg()[0]
    print(f"{ROUNDS} rounds, two workers each; the machine's load before: {before:.2f}", flush=True)
    figures: dict[str, float | int | str] = {"rounds": ROUNDS, "workers": WORKERS, "warm_children": WARM}
    start_figures = measure_starts()
    figures |= summed_up(*measure_rates())
    figures |= start_figures
    figures["load_average_before"] = before
    write("sandbox", figures)
    tell_goals(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
