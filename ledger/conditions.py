"""Which runs, said so that the partial indexes are used: these hold the few that have not ended, not all there ever were."""

from __future__ import annotations

from sqlalchemy import and_, func, literal_column

from ledger.tables import RUNNING, RunRow

# as it stands in the index: a bound parameter would not match it
WAITING = RunRow.state == literal_column("'queued'")
# by the leases; lower(), for an index by state would bring up all runs (so would a GROUP BY owner)
IS_RUNNING = and_(RunRow.lease_until_ms > 0, func.lower(RunRow.state) == RUNNING)
