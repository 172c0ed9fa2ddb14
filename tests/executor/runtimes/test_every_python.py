"""What `make runtimes` built: a handler registered from each Python, with its dill, runs in that Python's sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from devstack import runtimes
from executor.packages import Bounds, Packages
from executor.sandbox.job import MIB, Access, Runtime
from executor.sandbox.runtime import SandboxedRuntime
from ledger.handlers import blob
from ledger.tables import HandlerVersionRow
from schemas.records import Outcome
from tests import btrdb_server
from tests.executor.sandbox.conftest import make_job
from tests.package_index import serving
from tests.registry_server import KEYS, Running, running

ORDINARY = ("py3.6", "py3.7", "py3.13")
"""In every `make test`: the oldest, the one that most users have, the newest."""
NAMES = [one.name for one in runtimes.chosen()]
BUILT = runtimes.built()
REGISTER = Path(__file__).with_name("register_handler.py")


@pytest.fixture(scope="module")
def btrdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[btrdb_server.Running]:
    started = btrdb_server.start(tmp_path_factory.mktemp("btrdb"))
    yield started
    started.server.stop()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("registry"), ",".join(NAMES)) as started:
        yield started


def python_of(name: str) -> Path:
    """Its interpreter; skips when it is not built."""
    if name not in BUILT:
        pytest.skip(f"{name} is not built here; `make runtimes` builds it where its Python is found")
    return BUILT[name]


def register_from(python: Path, registry: Running, folder: Path) -> tuple[str, bytes]:
    """Registers by the client, or as a client of old where the Python has none; the runtime it goes to and its pickle."""
    client = subprocess.run([python, "-c", "import btrdbextras"], capture_output=True, check=False).returncode == 0
    if client:
        given = [f"127.0.0.1:{registry.servers.public}", KEYS["alice"]]
        environment = {**os.environ, "BTRDB_CA_BUNDLE": str(registry.ca)}
        subprocess.run([python, "-W", "ignore", REGISTER, *given], check=True, env=environment)
        handler = max(registry.handlers(), key=lambda one: one.id)
    else:
        subprocess.run([python, "-W", "ignore", REGISTER, folder / "blob"], check=True)
        registered = registry.register(name="old", blob=(folder / "blob").read_bytes(), python_version="")
        handler = registered.handler
    with registry.ledger.read() as session:
        query = select(HandlerVersionRow.digest).where(HandlerVersionRow.handler_id == handler.id)
        body = blob(session, session.scalars(query).one())
    assert body is not None
    return handler.runtime, body


@pytest.mark.parametrize(
    "name", [name if name in ORDINARY else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_handler_registered_from_each_python_runs_in_that_pythons_sandbox_and_reaches_btrdb(
    name: str, tmp_path: Path, registry: Running, btrdb: btrdb_server.Running
) -> None:
    python = python_of(name)

    goes_to, body = register_from(python, registry, tmp_path)
    access = Access(btrdb.endpoint, btrdb.settings.ca)
    runtime = SandboxedRuntime(Runtime(name, python), access, warm=0, scratch_bytes=64 * MIB)
    runtime.start()
    try:
        ended = runtime.run(make_job(body, wall_s=120.0, api_key=btrdb.key))
    finally:
        runtime.close()

    assert goes_to == name
    assert (ended.outcome, ended.error) == (Outcome.SUCCEEDED, None)
    assert ended.text == f"{name.removeprefix('py')} /a.cfg 6.0 5 0"
    assert ended.log.startswith("names: File, RequestID, SubmittedAt")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_installed_for_each_python_by_its_own_pip(name: str, tmp_path: Path) -> None:
    python = python_of(name)
    bounds = Bounds(64 * MIB, 16 * MIB, 120.0, 512 * MIB)
    with serving() as index:
        index.add("greeting", "1.0", {"greeting.py": "WORD = 'hello'\n"}, ["numpy"])

        packages = Packages(tmp_path, {name: python}, index.of(), bounds)
        with packages.lent(name, ["greeting"]) as lock:
            site = tmp_path / lock / "lib" / f"python{name.removeprefix('py')}" / "site-packages"
            found = sorted(path.name for path in site.iterdir() if not path.name.startswith("__"))

    # numpy is the runtime's own
    assert found == ["greeting-1.0.dist-info", "greeting.py"]
