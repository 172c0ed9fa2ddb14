"""Event processing for the PredictiveGrid platform, from a notebook. Start with Connection and btrdbextras.eventproc."""

from btrdbextras.conn import Connection

__version__ = "6.0.0"

__all__ = ["Connection", "__version__"]
