"""A registry for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry_server import Running, running


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as started:
        yield started
