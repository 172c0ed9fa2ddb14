"""The station that closes runs in the ledger and writes to those who registered their handlers."""
