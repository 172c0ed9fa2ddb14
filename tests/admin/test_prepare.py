"""Tables and topics, made before the stations start."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from admin import desk
from ledger import Ledger
from schemas.errors import TryLater
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.admin.conftest import call, called


def test_migrate_makes_the_tables_and_may_be_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'fresh.db'}"
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", url)

    assert "this release's" in call("migrate")
    assert "this release's" in call("migrate")

    ledger = Ledger.open(url)
    assert ledger.unlike() == ""
    ledger.close()


def test_topics_makes_all_that_the_schemas_name(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryBroker()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr(desk, "open_broker", lambda settings: memory)

    made = call("topics", "--runtimes", "py3.11, py3.7").split()

    assert made == [topic.name for topic in topics(("py3.11", "py3.7"))]
    for name in made:
        assert memory.admin().end_offsets(name)


@pytest.mark.parametrize(("given", "told"), [(" , ", "names no runtime"), ("py 3", "runtime 'py 3'")])
def test_topics_says_what_is_wrong_with_the_runtimes(given: str, told: str) -> None:
    assert told in call("topics", "--runtimes", given, code=2)


class ComesLater(MemoryBroker):
    """Away until somebody has asked so often."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    def admin(self) -> Any:
        outer = self
        admin: Any = super().admin()
        made = admin.ensure_topics

        def ensure_topics(*given: Any) -> None:
            outer.refusals -= 1
            if outer.refusals >= 0:
                raise TryLater("Kafka at 127.0.0.1:9: connection refused")
            made(*given)

        admin.ensure_topics = ensure_topics
        return admin


def test_topics_waits_for_a_broker_that_is_not_there_yet_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ComesLater(2)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr(desk, "open_broker", lambda settings: memory)

    told = called("topics", "--runtimes", "py3.11", "--wait", "60")

    assert told.stderr.count("waiting for") == 1
    assert "connection refused" in told.stderr
    assert memory.admin().end_offsets("eventproc.results")


@pytest.mark.parametrize(
    ("wait", "told"), [("0", "connection refused; try"), ("0.1", "refused (waited for 0.1 s); try")]
)
def test_what_stays_away_ends_the_command_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, wait: str, told: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr(desk, "open_broker", lambda settings: ComesLater(1_000_000))

    assert told in called("topics", "--runtimes", "py3.11", "--wait", wait, code=75).stderr


def test_migrate_waits_for_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("EVENTPROC_LEDGER_URL", f"postgresql+psycopg://me:secret@127.0.0.1:{port}/none")

    told = called("migrate", "--wait", "0.1", code=75).stderr

    assert "(waited for 0.1 s); try again later" in told
    assert "secret" not in told
