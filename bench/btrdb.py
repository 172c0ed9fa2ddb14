"""make bench-btrdb: ten million points into the development server and out again, beside a bare file of the same points."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import btrdb
import numpy as np
import pyarrow as pa

from bench.figures import percentile, write
from devstack.addresses import free_address
from devstack.certificates import make_certificates
from devstack.keys import make_keys

POINTS = 10_000_000
START, STEP = 1_600_000_000_000_000_000, 1_000_000
PORT = 4411
ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def server(folder: Path, address: str, environment: dict[str, str]) -> Iterator[None]:
    """The server in a process of its own; ready when the block begins, gone when it ends."""
    command = [sys.executable, "-m", "devstack.btrdb"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise SystemExit(f"the server at {address} did not start")
        yield
    finally:
        process.terminate()
        process.wait(30)


def table() -> pa.Table:
    """The points, a wave with some noise."""
    times = START + np.arange(POINTS, dtype=np.int64) * STEP
    values = np.sin(np.arange(POINTS) / 1000) + np.random.default_rng(7).normal(0, 0.01, POINTS)
    return pa.table({"time": pa.array(times, pa.timestamp("ns", tz="UTC")), "value": values})


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that it took, and what it gave."""
    began = time.perf_counter()
    given = work()
    return time.perf_counter() - began, given


def bare(points: pa.Table, folder: Path) -> dict[str, float]:
    """The same points to an Arrow file and two numpy files, synced to disk, and back."""

    def save_arrow() -> None:
        with pa.OSFile(str(folder / "points.arrow"), "wb") as out, pa.ipc.new_file(out, points.schema) as writer:
            writer.write_table(points)
        os.sync()

    def load_arrow() -> Any:
        with pa.OSFile(str(folder / "points.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def save_numpy() -> None:
        np.save(folder / "times.npy", points.column(0).cast(pa.int64()).to_numpy())
        np.save(folder / "values.npy", points.column(1).to_numpy())
        os.sync()

    def load_numpy() -> Any:
        return np.load(folder / "times.npy"), np.load(folder / "values.npy")

    steps = {
        "arrow_file_write": save_arrow,
        "arrow_file_read": load_arrow,
        "numpy_file_write": save_numpy,
        "numpy_file_read": load_numpy,
    }
    return {f"{name}_points_per_s": POINTS / timed(work)[0] for name, work in steps.items()}


def served(stream: Any) -> dict[str, float]:
    """Reads of all kinds; every answer is checked."""
    end = START + POINTS * STEP
    read_s, got = timed(lambda: stream.arrow_values(START, end))
    count_s, counted = timed(lambda: stream.count(START, end, precise=True))
    wide_s, wide = timed(lambda: stream.arrow_aligned_windows(START, end, pointwidth=36))
    fine_s, fine = timed(lambda: stream.arrow_aligned_windows(START, end, pointwidth=24))
    odd_s, odd = timed(lambda: stream.arrow_windows(START, end, width=7_777_777_777))
    nearest = [timed(lambda k=k: stream.nearest(START + k * 77_777_777, 0))[0] for k in range(100)]  # type: ignore[misc]
    assert got.num_rows == POINTS == counted
    assert int(np.sum(fine["count"].to_numpy())) > POINTS * 0.999
    assert wide.num_rows > 100 and odd.num_rows > 1_000
    return {
        "read_points_per_s": POINTS / read_s,
        "count_all_ms": count_s * 1e3,
        "aligned_windows_69_s_ms": wide_s * 1e3,
        "aligned_windows_17_ms_ms": fine_s * 1e3,
        "windows_7_8_s_ms": odd_s * 1e3,
        "nearest_p50_ms": percentile(nearest, 0.5) * 1e3,
    }


def main() -> int:
    """Measures server and files in one run."""
    warnings.simplefilter("ignore", FutureWarning)
    points = table()
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as name:
        folder = Path(name)
        address = free_address(PORT)
        tls = make_certificates(folder / "tls", address)
        key = make_keys({"alice": ()}, folder / "keys.json")["alice"]
        given = {"ADDRESS": address, "PORT": str(PORT), "DATA": str(folder / "data"), "CERT": str(tls.cert)}
        given |= {"KEY": str(tls.key), "CA": str(tls.ca), "KEYS_FILE": str(folder / "keys.json")}
        environment = {**os.environ, **{f"DEVSTACK_BTRDB_{name}": value for name, value in given.items()}}
        os.environ["BTRDB_CA_BUNDLE"] = str(tls.ca)
        print(f"{POINTS:,} points: files, insert, read, restart, read ...", flush=True)
        figures: dict[str, float | int | str] = {"points": POINTS, **bare(points, folder)}
        uu = uuid.uuid4()
        with server(folder, address, environment):
            stream = btrdb.connect(f"{address}:{PORT}", apikey=key).create(uu, "bench", tags={"name": "s"})
            insert_s, _ = timed(lambda: stream.arrow_insert(points))
            figures |= {"insert_points_per_s": POINTS / insert_s, **served(stream)}
        figures["bytes_per_point_on_disk"] = sum(f.stat().st_size for f in (folder / "data").iterdir()) / POINTS
        with server(folder, address, environment):
            stream = btrdb.connect(f"{address}:{PORT}", apikey=key).stream_from_uuid(uu)
            first_s, _ = timed(lambda: stream.arrow_aligned_windows(START, START + POINTS * STEP, pointwidth=36))
            figures |= {"windows_after_restart_ms": first_s * 1e3}
    for side, peer in (("insert", "write"), ("read", "read")):
        for kind in ("arrow", "numpy"):
            ratio = float(figures[f"{side}_points_per_s"]) / float(figures[f"{kind}_file_{peer}_points_per_s"])
            figures[f"ratio_{side}_to_{kind}_file"] = ratio
    write("btrdb", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
