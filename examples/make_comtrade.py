"""Writes COMTRADE archives of a simulated three-phase fault, in every encoding and revision (IEEE C37.111-1991, -1999, -2013).

python -m examples.make_comtrade OUT.zip --encoding FLOAT32 --revision 2013 --broken-pair
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

LINE_HZ = 60.0
CT, PT = (1200.0, 5.0), (500_000.0, 115.0)
LOAD_A, FAULT_A, LINE_V = 400.0, 7200.0, 500_000.0
TRIP_S, OPEN_S = 0.025, 5 / LINE_HZ
"""After the fault's beginning: the relay trips, the breaker is open."""
ENCODINGS = ("ASCII", "BINARY", "BINARY32", "FLOAT32")
REVISIONS = (1991, 1999, 2013)

Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Analog:
    """A channel in secondary units."""

    name: str
    phase: str
    unit: str
    ratio: tuple[float, float]
    values: Column


@dataclass(frozen=True)
class Fault:
    """What a recorder saw. trigger: index of the sample at which the fault begins."""

    start: datetime
    rate_hz: int
    trigger: int
    analogs: tuple[Analog, ...]
    statuses: tuple[tuple[str, npt.NDArray[np.bool_]], ...]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.analogs[0].values)


def simulate(start: datetime, seconds: float = 0.5, rate_hz: int = 4800) -> Fault:
    """A line carries its load; a fifth of the way in, phase A goes to ground; five cycles later the breaker is open.

    start: the first sample's instant, UTC. The fault current has a decaying offset, as the real one does.
    """
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    trigger = len(t) // 5
    since = t - t[trigger]
    faulted, closed = since >= 0, since < OPEN_S
    noise = np.random.default_rng(20201029)
    currents, voltages = [], []
    for index, phase in enumerate("ABC"):
        angle = 2 * np.pi * (LINE_HZ * t - index / 3)
        current = np.sqrt(2) * LOAD_A * np.sin(angle - 0.3)
        voltage = np.sqrt(2 / 3) * LINE_V * np.sin(angle)
        if phase == "A":
            swing = np.sin(angle - 1.4) - np.sin(angle[trigger] - 1.4) * np.exp(-np.clip(since, 0, None) / 0.03)
            current = np.where(faulted, np.sqrt(2) * FAULT_A * swing, current)
            voltage = np.where(faulted & closed, 0.35 * voltage, voltage)
        currents.append(np.where(closed, current, 0.0) / (CT[0] / CT[1]) + noise.normal(0, 0.002, len(t)))
        voltages.append(voltage / (PT[0] / PT[1]) + noise.normal(0, 0.02, len(t)))
    analogs = [Analog(f"V{p}", p, "V", PT, v) for p, v in zip("ABC", voltages, strict=True)]
    analogs += [Analog(f"I{p}", p, "A", CT, i) for p, i in zip("ABC", currents, strict=True)]
    analogs.append(Analog("IN", "N", "A", CT, np.sum(currents, axis=0)))
    tripped = (since >= TRIP_S) & (since < OPEN_S + 0.05)
    statuses = (("52A", closed), ("TRIP", tripped), ("21P1", faulted & (since < OPEN_S)))
    return Fault(start, rate_hz, trigger, tuple(analogs), statuses)


def fault_archive(
    path: Path,
    *,
    start: datetime | None = None,
    encoding: str = "BINARY",
    revision: int = 2013,
    station: str = "North Substation",
    device: str = "Line 4 relay",
    broken_pair: bool = False,
    cff: bool = False,
    seconds: float = 0.5,
    rate_hz: int = 4800,
    recordings: int = 1,
) -> None:
    """Writes a zip with recordings of a fault, a minute apart; start: UTC, None for now. Raises ValueError.

    broken_pair: adds a pair whose DAT file ends in the middle of a sample. cff: one file per recording (revision 2013).
    """
    if encoding not in ENCODINGS or revision not in REVISIONS:
        raise ValueError(f"encoding should be one of {ENCODINGS}, revision one of {REVISIONS}")
    if revision < 2013 and (cff or encoding in ("BINARY32", "FLOAT32")):
        raise ValueError(f"CFF, BINARY32 and FLOAT32 came with revision 2013; {revision} has ASCII and BINARY pairs")
    first = start or datetime.now(UTC).replace(tzinfo=None)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(recordings):
            fault = simulate(first + timedelta(minutes=number), seconds, rate_hz)
            name = f"fault_{number + 1}"
            cfg = config_text(fault, encoding, revision, station, device)
            dat = data_bytes(fault, encoding, revision)
            if cff:
                archive.writestr(f"{name}.cff", combined(cfg, dat, encoding))
            else:
                archive.writestr(f"{name}.cfg", cfg.encode())
                archive.writestr(f"{name}.dat", dat)
        if broken_pair:
            fault = simulate(first, 0.1, rate_hz)
            archive.writestr("broken.cfg", config_text(fault, "BINARY", 1999, station, "Line 5 relay").encode())
            archive.writestr("broken.dat", data_bytes(fault, "BINARY", 1999)[:-7])


def config_text(fault: Fault, encoding: str, revision: int, station: str, device: str) -> str:
    """The CFG file (clause 7.4 of revision 2013), lines ended by CR LF."""
    analogs, statuses = fault.analogs, fault.statuses
    head = f"{station},{device}" if revision == 1991 else f"{station},{device},{revision}"
    lines = [head, f"{len(analogs) + len(statuses)},{len(analogs)}A,{len(statuses)}D"]
    for number, analog in enumerate(analogs, 1):
        a = repr(_scale(analog, encoding)) if encoding != "FLOAT32" else "1"
        low, high = (-99999, 99998) if encoding == "ASCII" else (-32767, 32767)
        line = f"{number},{analog.name},{analog.phase},Line 4,{analog.unit},{a},0,0,{low},{high}"
        lines.append(line if revision == 1991 else f"{line},{analog.ratio[0]:g},{analog.ratio[1]:g},S")
    for number, (name, values) in enumerate(statuses, 1):
        normal = int(values[0])
        lines.append(f"{number},{name},{normal}" if revision == 1991 else f"{number},{name},,Line 4,{normal}")
    trigger = fault.start + timedelta(seconds=fault.trigger / fault.rate_hz)
    lines += [f"{LINE_HZ:g}", "1", f"{fault.rate_hz},{fault.samples}"]
    lines += [_instant(fault.start, revision), _instant(trigger, revision), encoding]
    if revision >= 1999:
        lines.append("1")
    if revision == 2013:
        lines += ["0,0", "0,0"]
    return "\r\n".join(lines) + "\r\n"


def data_bytes(fault: Fault, encoding: str, revision: int) -> bytes:
    """The DAT file (clause 8 of revision 2013): sample number, time stamp in microseconds, analog values, status bits."""
    number = np.arange(1, fault.samples + 1)
    stamp = np.round((number - 1) * 1e6 / fault.rate_hz).astype(np.int64)
    raw = [np.round(a.values / _scale(a, encoding)) if encoding != "FLOAT32" else a.values for a in fault.analogs]
    if revision == 1991:
        raw = [np.where(r == -1, -2, r) for r in raw]  # hexadecimal FFFF means missing there
    if encoding == "ASCII":
        columns = [number, stamp, *(r.astype(np.int64) for r in raw), *(s.astype(int) for _, s in fault.statuses)]
        return b"".join(",".join(map(str, row)).encode() + b"\r\n" for row in zip(*columns, strict=True))
    kind = {"BINARY": "<i2", "BINARY32": "<i4", "FLOAT32": "<f4"}[encoding]
    words = (len(fault.statuses) + 15) // 16
    row = np.dtype([("number", "<u4"), ("stamp", "<u4"), ("analog", kind, (len(raw),)), ("status", "<u2", (words,))])
    table = np.zeros(fault.samples, row)
    table["number"], table["stamp"] = number, stamp
    for index, column in enumerate(raw):
        table["analog"][:, index] = column
    for index, (_, values) in enumerate(fault.statuses):
        table["status"][:, index // 16] |= (values.astype(np.uint16) << (index % 16)).astype(np.uint16)
    return table.tobytes()


def combined(cfg: str, dat: bytes, encoding: str) -> bytes:
    """The CFF file (clause 6 of revision 2013)."""
    size = "" if encoding == "ASCII" else f": {len(dat)}"
    parts = [
        f"--- file type: CFG ---\r\n{cfg}",
        "--- file type: INF ---\r\n",
        "--- file type: HDR ---\r\nsimulated\r\n",
    ]
    return "".join(parts).encode() + f"--- file type: DAT {encoding}{size} ---\r\n".encode() + dat


def _scale(analog: Analog, encoding: str) -> float:
    largest = {"ASCII": 99_000, "BINARY": 32_000, "BINARY32": 2_000_000_000, "FLOAT32": 1}[encoding]
    return float(f"{np.abs(analog.values).max() / largest:.6g}")


def _instant(instant: datetime, revision: int) -> str:
    day = "%m/%d/%Y" if revision == 1991 else "%d/%m/%Y"
    return f"{instant:{day},%H:%M:%S.%f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes a COMTRADE archive of a simulated three-phase fault.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--encoding", choices=ENCODINGS, default="BINARY")
    parser.add_argument("--revision", type=int, choices=REVISIONS, default=2013)
    parser.add_argument("--recordings", type=int, default=1)
    parser.add_argument("--broken-pair", action="store_true", help="adds a pair that cannot be read")
    parser.add_argument("--cff", action="store_true", help="one file per recording")
    given = parser.parse_args(arguments)
    try:
        fault_archive(
            given.path,
            encoding=given.encoding,
            revision=given.revision,
            recordings=given.recordings,
            broken_pair=given.broken_pair,
            cff=given.cff,
        )
    except ValueError as error:
        parser.error(str(error))
    print(f"wrote {given.path}")


if __name__ == "__main__":
    main()
