"""The command line, in this process, against a real registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs

from btrdbextras import commands
from tests.registry_server import KEYS, Running, running


@dataclass(frozen=True)
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Of stdout."""
        return json.loads(self.out)


Say = Callable[..., Said]


@contextmanager
def served(app: Any, tls: Any) -> Iterator[str]:
    """An ASGI application at the https:// address that is given."""
    config = uvicorn.Config(
        app, "127.0.0.1", 0, log_config=None, ssl_keyfile=str(tls.key), ssl_certfile=str(tls.cert), lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    with capture_logs(), running(tmp_path / "registry", check_s=0.0) as served:  # its logs go where answers go
        yield served


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs eventproc; whom it asks is told by the environment."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = commands.run(list(words))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def eventproc(registry: Running, say: Say, monkeypatch: pytest.MonkeyPatch) -> Say:
    """alice's eventproc."""
    monkeypatch.setenv("BTRDB_ENDPOINTS", f"127.0.0.1:{registry.servers.public}")
    monkeypatch.setenv("BTRDB_CA_BUNDLE", str(registry.ca))
    monkeypatch.setenv("BTRDB_API_KEY", KEYS["alice"])
    return say


@pytest.fixture
def peaks(tmp_path: Path) -> Path:
    """A file with functions, as a user has it."""
    file = tmp_path / "peaks.py"
    file.write_text(
        "print('peaks is loaded')\n"
        "LIMIT = 3\n\n\n"
        "def peaks(DataSets, **kwargs):\n"
        "    print('looking')\n"
        "    return '%d of %d' % (len(DataSets), LIMIT)\n\n\n"
        "def fails(**kwargs):\n"
        "    raise KeyError('no such phase')\n\n\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(0)\n"
    )
    return file
