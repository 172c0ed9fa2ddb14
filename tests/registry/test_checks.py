"""A registration asks an executor whether the handler loads, for some seconds at most."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ledger.load_checks import Verdict
from ledger.tables import LoadCheckRow
from registry.checks import Checks
from schemas.generated import eventprocapi_pb2
from schemas.generated import executorapi_pb2 as api
from tests.registry_server import TOKEN, Running, bearer, pickled, refusal, running

Answer = Callable[[api.Check], api.AnswerCheckRequest]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def serve_one(registry: Running, pool: ThreadPoolExecutor, answer: Answer) -> Future[None]:
    """An executor of py3.11 that polls, once it is seen to be there."""

    def work() -> None:
        token = bearer(TOKEN)
        request = api.NextCheckRequest(executor="one", runtimes=["py3.11"], wait_s=20)
        asked = registry.executors.NextCheck(request, metadata=token, timeout=60)
        registry.executors.AnswerCheck(answer(asked.check), metadata=token, timeout=30)

    # a poll that ends at once shows that an executor is there
    registry.executors.NextCheck(api.NextCheckRequest(runtimes=["py3.11"]), metadata=bearer(TOKEN), timeout=30)
    return pool.submit(work)


def test_a_handler_that_does_not_load_is_refused_with_what_the_executor_says(
    registry: Running, pool: ThreadPoolExecutor
) -> None:
    text = "the handler needs the module 'talib', which this runtime does not have"
    serve_one(registry, pool, lambda check: api.AnswerCheckRequest(id=check.id, verdict=api.REFUSED, text=text))

    status, said = refusal(registry.register)

    assert status == "INVALID_ARGUMENT"
    assert said == f"blob: does not load in py3.11: {text}"
    assert registry.handlers() == []


def test_a_handler_that_loads_is_registered_and_told_so_with_what_it_will_miss(
    registry: Running, pool: ThreadPoolExecutor
) -> None:
    seen: list[api.Check] = []

    def answer(check: api.Check) -> api.AnswerCheckRequest:
        seen.append(check)
        return api.AnswerCheckRequest(id=check.id, verdict=api.LOADS, lacking=["talib"])

    serve_one(registry, pool, answer)
    blob = pickled()

    answered = registry.register(blob=blob)

    assert (seen[0].runtime, seen[0].hook, seen[0].blob) == ("py3.11", "ctingress.on_complete", blob)
    assert answered.check == "loads in py3.11"
    assert list(answered.notes) == [
        "the function imports 'talib', which py3.11 does not have: requirements=[...] asks for packages"
    ]


def test_more_memory_than_executors_give_is_refused_by_naming_how_much_they_give(
    registry: Running, pool: ThreadPoolExecutor
) -> None:
    def answer(check: api.Check) -> api.AnswerCheckRequest:
        return api.AnswerCheckRequest(id=check.id, verdict=api.LOADS, memory_bytes=512 << 20)

    serve_one(registry, pool, answer)
    status, said = refusal(lambda: registry.register(options=eventprocapi_pb2.Options(memory_bytes=1 << 30)))
    serve_one(registry, pool, answer)
    fits = registry.register(options=eventprocapi_pb2.Options(memory_bytes=512 << 20))

    assert status == "INVALID_ARGUMENT"
    assert said.startswith("options.memory_bytes: is 1073741824; executors give a run at most 536870912 bytes here")
    assert fits.handler.options.memory_bytes == 512 << 20


def test_without_an_executor_it_is_accepted_and_said_to_be_unchecked(registry: Running) -> None:
    answered = registry.register()

    assert answered.check == "not checked: no executor of py3.11 is there now"
    assert list(answered.notes) == [answered.check]


def test_an_executor_that_cannot_say_refuses_nothing(registry: Running, pool: ThreadPoolExecutor) -> None:
    serve_one(
        registry, pool, lambda check: api.AnswerCheckRequest(id=check.id, verdict=api.NOT_TOLD, text="the zygote died")
    )

    assert registry.register().check == "not checked: the zygote died"


def test_checks_need_a_service_token(registry: Running) -> None:
    asked = api.NextCheckRequest(runtimes=["py3.11"])

    status, _ = refusal(lambda: registry.executors.NextCheck(asked, metadata=bearer("wrong"), timeout=30))

    assert status == "UNAUTHENTICATED"


def test_a_check_goes_to_one_executor_of_its_runtime_alone() -> None:
    checks = Checks(wait_s=30.0, at_once=2)
    checks.take(["py3.7", "py3.11"], 0)
    asking = threading.Thread(target=checks.ask, args=("py3.7", "hook", b"blob"))
    asking.start()

    other, _ = checks.take(["py3.11"], 0.05)
    mine, _ = checks.take(["py3.7"], 20)
    again, _ = checks.take(["py3.7"], 0.05)

    assert other is None and again is None
    assert mine is not None and mine.blob == b"blob"
    checks.answer(mine.id, Verdict(True, ""))
    asking.join(30)
    assert not asking.is_alive()


def test_no_answer_in_time_is_an_answer_too() -> None:
    checks = Checks(wait_s=0.05, at_once=2)
    checks.take(["py3.7"], 0)

    assert checks.ask("py3.7", "hook", b"") == Verdict(None, "no executor answered within 0.05 s")


def test_polls_beyond_the_threads_there_are_come_back_at_once() -> None:
    checks = Checks(wait_s=1.0, at_once=0)

    assert checks.take(["py3.7"], 20) == (None, 2.0)


@pytest.fixture
def other(registry: Running, tmp_path: Path) -> Iterator[Running]:
    """A second registry over the same ledger."""
    with running(tmp_path) as started:
        yield started


def known(registry: Running) -> None:
    """The ledger hears of an executor of py3.11."""
    request = api.RenewRequest(boot_id="boot", executor="one", slots=4, runtimes=["py3.11"])
    registry.executors.Renew(request, metadata=bearer(TOKEN), timeout=30)


def test_an_executor_that_asks_another_registry_is_asked_through_the_ledger(
    registry: Running, other: Running, pool: ThreadPoolExecutor
) -> None:
    known(other)
    text = "the handler needs the module 'talib', which this runtime does not have"
    served = serve_one(other, pool, lambda check: api.AnswerCheckRequest(id=check.id, verdict=api.REFUSED, text=text))

    status, said = refusal(registry.register)

    served.result(30)
    assert (status, text in said) == ("INVALID_ARGUMENT", True)


def test_what_loads_there_is_registered_with_what_it_lacks_and_nothing_is_left_in_the_ledger(
    registry: Running, other: Running, pool: ThreadPoolExecutor
) -> None:
    known(other)
    lacking = ["talib", "a\0b"]  # a name in a pickle's code is whatever its maker wrote
    serve_one(other, pool, lambda check: api.AnswerCheckRequest(id=check.id, verdict=api.LOADS, lacking=lacking))

    answer = registry.register()

    assert answer.check == "loads in py3.11"
    assert any("talib" in note for note in answer.notes)
    with registry.ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(LoadCheckRow)) == 0


def test_an_executor_that_answers_nobody_holds_a_registration_up_for_its_patience_only(tmp_path: Path) -> None:
    with running(tmp_path, check_s=0.5) as registry:
        known(registry)

        answer = registry.register()

    assert answer.check == "not checked: no executor answered within 0.5 s"
