"""What a COMTRADE recording says, once read: plain data, the same for every revision, encoding and file type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Channel:
    """One analog or status channel as the CFG declares it (IEEE C37.111-2013, 7.4.4 and 7.4.5).

    index: its number, from 1; kind: analog or status; unit: trimmed, '' for status; a, b: value = a*x + b, in the CFG's unit;
    skew_us: noted, never applied; primary, secondary: the transformer's ratio; ps: P, S or '' (status, revision 1991);
    normal: a status channel's normal state.
    """

    index: int
    kind: str
    name: str
    phase: str
    circuit: str
    unit: str = ""
    a: float = 1.0
    b: float = 0.0
    skew_us: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    primary: float = 1.0
    secondary: float = 1.0
    ps: str = ""
    normal: int | None = None

    @property
    def to_primary(self) -> float:
        """What a value is multiplied by to be in primary units: primary/secondary where values are secondary, else 1."""
        return self.primary / self.secondary if self.ps == "S" and self.secondary else 1.0


@dataclass(frozen=True)
class Rate:
    """A rate segment: hz as its exact text, for exact arithmetic; end_sample: number of its last sample, counted from 1."""

    hz: str
    end_sample: int


@dataclass(frozen=True)
class Config:
    """A CFG file. start_local_ns, trigger_local_ns: as written, in ns since 1970-01-01T00:00:00 of the recorder's clock;
    no trigger: None.

    time_code: as the 2013 revision writes it (-5h30), or None; rates: empty when samples carry time stamps only;
    stamp_unit_ns: of the DAT file's time stamps, before the multiplier (C37.111-2013, 8.4).
    """

    station: str
    device: str
    revision: int
    channels: tuple[Channel, ...]
    line_frequency_hz: float | None
    rates: tuple[Rate, ...]
    total_samples: int | None
    start_local_ns: int
    trigger_local_ns: int | None
    encoding: str
    time_multiplier: str = "1"
    stamp_unit_ns: int = 1000
    time_code: str | None = None
    local_code: str | None = None
    time_quality: str | None = None
    leap_second: str | None = None


@dataclass(frozen=True)
class Samples:
    """A DAT file. values: float64, one row per channel in the config's order, a*x+b applied, NaN where missing;
    offsets_ns: int64, one per sample, from the recording's start."""

    values: npt.NDArray[np.float64]
    offsets_ns: npt.NDArray[np.int64]

    @property
    def missing(self) -> int:
        """How many samples carry the revision's sentinel for a missing value."""
        return int(np.isnan(self.values).sum())
