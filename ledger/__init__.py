"""The book of record: handlers and their versions, events with frozen matches, runs, attempts, emails to send."""

from ledger.engine import Ledger, now_ms

__all__ = ["Ledger", "now_ms"]
