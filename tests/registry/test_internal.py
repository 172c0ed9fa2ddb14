"""The executors' service over TLS: claims, renewals, reports, hand-backs, blobs, and the token that each needs."""

from __future__ import annotations

import hashlib

import grpc
import pytest

from ledger.events import Match, record_events
from schemas.events import Event
from schemas.generated import executorapi_pb2 as api
from tests.registry_server import HOOK, KEYS, TOKEN, Running, bearer, pickled, refusal

TRUSTED = bearer(TOKEN)


@pytest.fixture
def run_id(registry: Running) -> str:
    """A run of alice's handler that waits for an executor."""
    handler = registry.register(source="def handler(**kwargs): ...", first_line=7).handler
    event = Event(HOOK, "5a0f0f5c-0000-4000-8000-000000000001", ("north",), "a.zip", "", {"File": "a.zip"})
    with registry.ledger.write() as session:
        match = Match(handler.id, handler.version, "alice", handler.runtime)
        (recorded,) = record_events(session, [(event, [match])])
    return recorded.invitations[0].run_id


def claim(registry: Running, *run_ids: str, nonce: str = "n1", boot: str = "b1") -> api.ClaimResponse:
    request = api.ClaimRequest(boot_id=boot, nonce=nonce, executor="ex-1", run_ids=run_ids)
    answer: api.ClaimResponse = registry.executors.Claim(request, metadata=TRUSTED)
    return answer


def test_every_call_needs_the_service_token(registry: Running) -> None:
    e = registry.executors
    for metadata in (None, bearer("wrong"), bearer(KEYS["root"])):
        calls = (
            lambda m=metadata: e.Claim(api.ClaimRequest(boot_id="b", nonce="n"), metadata=m),
            lambda m=metadata: e.Renew(api.RenewRequest(), metadata=m),
            lambda m=metadata: e.Report(api.ReportRequest(), metadata=m),
            lambda m=metadata: e.HandBack(api.HandBackRequest(), metadata=m),
            lambda m=metadata: list(e.GetBlob(api.GetBlobRequest(), metadata=m)),
        )
        for call in calls:
            status, text = refusal(call)
            assert status == "UNAUTHENTICATED" and "EXECUTOR_TOKEN_FILE" in text


def test_each_of_several_tokens_is_good_while_they_are_rotated(registry: Running) -> None:
    assert registry.executors.Renew(api.RenewRequest(), metadata=bearer("an-older-one")).lease_s == 180


def test_a_claimed_run_comes_with_all_that_its_sandbox_needs(registry: Running, run_id: str) -> None:
    answer = claim(registry, run_id)

    (only,) = answer.answers
    run = only.run
    assert only.run_id == run_id and run.lease_id
    assert (run.handler_name, run.owner, run.hook, run.runtime, run.attempt) == ("report", "alice", HOOK, "py3.11", 1)
    assert run.api_key == KEYS["alice"]
    assert run.blob_digest == hashlib.sha256(pickled()).hexdigest()
    assert (run.source, run.first_line) == ("def handler(**kwargs): ...", 7)
    assert [event.key for event in answer.events] == [run.event_key]
    assert answer.events[0].body == b'{"File":"a.zip"}'


def test_the_same_claim_asked_again_gets_the_same_lease_another_gets_none(registry: Running, run_id: str) -> None:
    first, again = claim(registry, run_id), claim(registry, run_id)
    other = claim(registry, run_id, boot="b2")

    assert first.answers == again.answers
    assert other.answers[0].WhichOneof("answer") in ("drop", "later")


def test_a_claim_of_more_than_an_answer_holds_leases_what_fits_and_the_rest_is_for_later(registry: Running) -> None:
    handler = registry.register().handler
    match = Match(handler.id, handler.version, "alice", handler.runtime)
    great = {"File": "x" * (25 * 1024 * 1024)}
    events = [Event(HOOK, f"5a0f0f5c-0000-4000-8000-00000000001{n}", (), "a.zip", "", great) for n in range(4)]
    with registry.ledger.write() as session:
        recorded = record_events(session, [(event, [match]) for event in events])
    runs = [invitation.run_id for record in recorded for invitation in record.invitations]

    first, again = claim(registry, *runs), claim(registry, *runs)
    rest = claim(registry, *runs[2:], nonce="n2")

    assert [one.WhichOneof("answer") for one in first.answers] == ["run", "run", "later", "later"]
    assert first.answers == again.answers
    assert [one.WhichOneof("answer") for one in rest.answers] == ["run", "run"]


def test_a_run_that_never_was_is_dropped(registry: Running) -> None:
    assert claim(registry, "00000000-0000-4000-8000-000000000000").answers[0].WhichOneof("answer") == "drop"


def test_renewing_names_the_leases_that_are_lost(registry: Running, run_id: str) -> None:
    lease = api.Lease(run_id=run_id, lease_id=claim(registry, run_id).answers[0].run.lease_id)
    stranger = api.Lease(run_id="11111111-0000-4000-8000-000000000000", lease_id="x")

    answer = registry.executors.Renew(api.RenewRequest(boot_id="b1", leases=[lease, stranger]), metadata=TRUSTED)

    assert list(answer.lost_run_ids) == [stranger.run_id]


def test_a_report_counts_with_its_lease_only(registry: Running, run_id: str) -> None:
    lease = api.Lease(run_id=run_id, lease_id=claim(registry, run_id).answers[0].run.lease_id)
    wrong = api.Lease(run_id=run_id, lease_id="x")

    assert not registry.executors.Report(api.ReportRequest(lease=wrong), metadata=TRUSTED).counted
    assert registry.executors.Report(api.ReportRequest(lease=lease), metadata=TRUSTED).counted


def test_a_run_handed_back_is_not_its_executors_any_more(registry: Running, run_id: str) -> None:
    lease = api.Lease(run_id=run_id, lease_id=claim(registry, run_id).answers[0].run.lease_id)
    request = api.HandBackRequest(lease=lease, reason=api.SHUTTING_DOWN, text="scaled down", begun=False)

    assert registry.executors.HandBack(request, metadata=TRUSTED).counted
    assert not registry.executors.HandBack(request, metadata=TRUSTED).counted
    assert not registry.executors.Report(api.ReportRequest(lease=lease), metadata=TRUSTED).counted


def test_a_blob_is_streamed_whole(registry: Running, run_id: str) -> None:
    digest = claim(registry, run_id).answers[0].run.blob_digest
    chunks = list(registry.executors.GetBlob(api.GetBlobRequest(digest=digest), metadata=TRUSTED))

    assert b"".join(chunk.data for chunk in chunks) == pickled()
    missing = registry.executors.GetBlob(api.GetBlobRequest(digest="0" * 64), metadata=TRUSTED)
    assert refusal(lambda: list(missing))[0] == "NOT_FOUND"


@pytest.mark.parametrize("changed", [{"boot_id": ""}, {"nonce": ""}, {"run_ids": ["r"] * 1001}])
def test_a_claim_that_cannot_be_answered_is_refused(registry: Running, changed: dict[str, object]) -> None:
    fields = {"boot_id": "b", "nonce": "n", "run_ids": ["r"], **changed}
    request = api.ClaimRequest(**fields)  # type: ignore[arg-type]

    with pytest.raises(grpc.RpcError) as caught:
        registry.executors.Claim(request, metadata=TRUSTED)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
