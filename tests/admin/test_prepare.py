"""Tables and topics, made before the stations start."""

from __future__ import annotations

from pathlib import Path

import pytest

from admin import desk
from ledger import Ledger
from schemas.topics import topics
from stream.memory import MemoryBroker
from tests.admin.conftest import call


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
