"""A real PostgreSQL, as the ledger's tests have it."""

from tests.ledger.conftest import postgresql, postgresql_url

__all__ = ["postgresql", "postgresql_url"]
