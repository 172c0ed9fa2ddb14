"""Extras around btrdb: register functions that run when new data arrives. Start with help(btrdbextras.eventproc)."""

from btrdbextras.conn import Connection

__version__ = "6.0.0"

__all__ = ["Connection", "__version__"]
