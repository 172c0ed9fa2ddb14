"""A million runs in PostgreSQL: what is too old goes by its indexes, beside those at work, and the books add up after it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from ledger import Ledger
from ledger.claims import Claimant, ClaimedRun, Lease, claim
from ledger.events import record_events
from ledger.handlers import NewHandler, register
from ledger.reconcile import reconcile
from ledger.results import close
from ledger.retain import KINDS, remove_some
from ledger.rules import KeepRules, Rules
from schemas.events import run_id
from schemas.records import Outcome, Result
from schemas.topics import DAY_MS
from tests.ledger.conftest import HOOK, an_event, match_of

EVENTS, RUNS_EACH, DAYS = 100_000, 10, 500
KEEP = KeepRules(texts_ms=90 * DAY_MS, runs_ms=400 * DAY_MS, events_ms=400 * DAY_MS, emails_ms=400 * DAY_MS)
BATCH = 500
OLD = EVENTS * 100 // DAYS  # events of more than 400 days ago, evenly spread as they are
TEXTS = EVENTS * RUNS_EACH * 10 // DAYS  # runs of 90 to 100 days ago, of which nobody has taken the texts yet

FILL = f"""
INSERT INTO handler (id, hook, name, owner, version, paused, created_by, created_at_ms, updated_by, updated_at_ms)
SELECT h, '{HOOK}', 'h' || h, 'owner' || h, 0, false, 'alice', 0, 'alice', 0 FROM generate_series(1, {RUNS_EACH}) h;
SELECT setval(pg_get_serial_sequence('handler', 'id'), {RUNS_EACH});
INSERT INTO blob VALUES ('d', 'x');
INSERT INTO handler_version (handler_id, version, digest, tags, notify_on_success, notify_on_failure, runtime, python_version,
  dill_version, packages, source, first_line, file_name, created_by, created_at_ms)
SELECT h, 0, 'd', '[]', CASE WHEN h <= 3 THEN 'a@example.com' ELSE '' END, '', 'py3.11', '', '', '{{}}', '', 1, '', 'alice', 0
FROM generate_series(1, {RUNS_EACH}) h;
INSERT INTO event (hook, request_id, subject, submitted_at, tags, body, matches, received_at_ms)
SELECT '{HOOK}', 'e' || e, 'a.zip', '', '[]', '{{}}', '[[1,0],[2,0],[3,0],[4,0],[5,0],[6,0],[7,0],[8,0],[9,0],[10,0]]', :now - at
FROM (SELECT e, ((e - 0.5) * {DAYS}.0 / {EVENTS} * {DAY_MS})::bigint AS at FROM generate_series(1, {EVENTS}) e) s;
INSERT INTO run (id, hook, request_id, handler_id, handler_version, owner, runtime, state, queued_at_ms, not_before_ms, claims,
  lost, lost_together, hand_backs, ended_at_ms, text, log, log_truncated, uploads, started_at_ns, ended_at_ns, cpu_s,
  peak_memory_bytes, texts_removed_at_ms)
SELECT run_ids.id, '{HOOK}', request_id, h, 0, 'owner' || h, 'py3.11', 'succeeded', received_at_ms,
  received_at_ms, 1, 0, 0, 0, received_at_ms, 'returned', 'printed', false, '[]', 0, 0, 0.1, 1000000,
  CASE WHEN received_at_ms < :now - {100 * DAY_MS}::bigint THEN received_at_ms END
FROM event JOIN run_ids USING (request_id);
INSERT INTO attempt (run_id, number, boot_hash, nonce, salt, executor, claimed_at_ms, ended_at_ms, begun, reason)
SELECT id, 1, 'b', id, 's', 'executor', queued_at_ms, queued_at_ms, true, 'succeeded' FROM run;
INSERT INTO notification (message_id, recipient, kind, digest, state, created_at_ms, not_before_ms, tries, ended_at_ms, reason)
SELECT id, 'a@example.com', 'success', false, 'sent', queued_at_ms, queued_at_ms, 1, ended_at_ms, '' FROM run WHERE handler_id <= 3;
INSERT INTO notification_run (run_id, notification_id) SELECT message_id, id FROM notification;
ANALYZE;
"""


@pytest.fixture
def million(postgresql_ledger: Ledger) -> Ledger:
    with postgresql_ledger.write() as session:
        now = int(time.time() * 1000)
        session.execute(text("CREATE TEMPORARY TABLE run_ids (request_id text, h int, id text) ON COMMIT DROP"))
        cursor = session.connection().connection.cursor()
        with cursor.copy("COPY run_ids FROM STDIN") as copy:
            for event, handler in itertools.product(range(1, EVENTS + 1), range(1, RUNS_EACH + 1)):
                copy.write_row((f"e{event}", handler, run_id(HOOK, f"e{event}", handler)))
        for statement in FILL.split(";\n"):
            if statement.strip():
                session.execute(text(statement), {"now": now} if ":now" in statement else {})
    return postgresql_ledger


@pytest.fixture
def postgresql_ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    opened = Ledger.open(request.getfixturevalue("postgresql_url"))
    opened.migrate()
    yield opened
    opened.close()


class AtWork:
    """A handler whose events go on coming, in a thread of its own: recorded, claimed, closed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.failed: BaseException | None = None
        with ledger.write() as session:
            new = NewHandler(HOOK, "at-work", "carol", (), "", "", "py3.11", b"x")
            self._match = match_of(register(session, new, "carol"))

    def __enter__(self) -> AtWork:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.01):
                with self._ledger.write() as session:
                    (recorded,) = record_events(session, [(an_event(), [self._match])])
                (run,) = recorded.invitations
                with self._ledger.write() as session:
                    ((_, answer),) = claim(session, Claimant("boot", run.run_id, "executor"), [run.run_id], Rules())
                assert isinstance(answer, ClaimedRun), answer
                lease = Lease(run.run_id, answer.lease_id)
                with self._ledger.write() as session:
                    assert close(session, Result(lease.run_id, lease.lease_id, Outcome.SUCCEEDED)).counted
                self.done += 1
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.failed = error


def plan_of(ledger: Ledger, statement: str) -> str:
    with ledger.read() as session:
        return "\n".join(session.scalars(text(f"EXPLAIN {statement}")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_a_million_runs_the_old_go_in_small_batches_while_others_are_at_work(million: Ledger) -> None:
    done = dict.fromkeys(KINDS, 0)
    longest = 0.0
    with AtWork(million) as others:
        for kind in KINDS:
            count = BATCH
            while count == BATCH:
                began = time.monotonic()
                with million.write() as session:
                    count = remove_some(session, kind, KEEP, BATCH)
                longest = max(longest, time.monotonic() - began)
                done[kind] += count
    print(f"the longest of the transactions took {longest:.2f} s; the others ended {others.done} runs meanwhile")

    assert others.failed is None and others.done > 0
    assert done == {
        "texts": TEXTS, "emails": OLD * 3, "runs": OLD * RUNS_EACH, "events": OLD, "handler_versions": 0, "redriven": 0,
        "audit": 0,
    }  # fmt: skip
    with million.read() as session:
        books = reconcile(session, 0)
    assert books.problems == ()
    assert (books.events, books.expected) == (EVENTS + others.done, EVENTS * RUNS_EACH + others.done)
    assert books.runs == {"succeeded": EVENTS * RUNS_EACH + others.done}
    assert books.emails == {"sent": EVENTS * 3}
    for which in ("texts_removed_at_ms IS NULL", "texts_removed_at_ms IS NOT NULL"):
        plan = plan_of(
            million, f"SELECT id FROM run WHERE {which} AND ended_at_ms < 1000 ORDER BY ended_at_ms LIMIT {BATCH}"
        )
        assert "Index Scan using run_" in plan and "Seq Scan" not in plan, plan
