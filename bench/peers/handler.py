"""The handler that is measured everywhere: a small computation over an array, with what handlers import imported before."""

from __future__ import annotations

import btrdb  # noqa: F401 - the same modules everywhere
import dill  # noqa: F401
import numpy as np
import pandas  # noqa: F401


def rms(values: list[float], **others: object) -> float:
    """The root mean square of values."""
    array = np.asarray(values)
    return float(np.sqrt(np.mean(array * array)))
