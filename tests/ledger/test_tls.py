"""PostgreSQL over TLS: the server is checked by its CA and its name, as sslmode=verify-full asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.certificates import Authority
from devstack.supervisor import Process, Supervisor
from ledger import Ledger
from schemas.errors import TryLater
from tests.secure_kafka import free_ports, loopback

pytestmark = pytest.mark.slow


def binaries() -> Path:
    """Debian's server; the one from PyPI was built without OpenSSL."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "postgres").exists():
            return folder
    pytest.skip("no PostgreSQL with OpenSSL under /usr/lib/postgresql (Debian's package postgresql)")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    """Address, port and CA of a server that takes nobody without TLS."""
    programs, folder = binaries(), tmp_path_factory.mktemp("tls")
    home = Path(
        tempfile.mkdtemp(prefix="eventproc-tls-")
    )  # the server runs as nobody, who may not enter root's folders
    address, authority = loopback(), Authority("databases")
    (port,) = free_ports(address, 1)
    cert, key = authority.issue(address, [address])
    (home / "server.crt").write_bytes(cert)
    (home / "server.key").write_bytes(key)
    (home / "server.key").chmod(0o600)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "other.pem").write_bytes(Authority("somebody else").pem)
    root = os.getuid() == 0
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if root else []
    if root:
        for path in (home, *home.iterdir()):
            os.chown(path, 65534, 65534)
    made = [*as_nobody, str(programs / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-A", "trust", "-N"]
    subprocess.run(made, check=True, capture_output=True, cwd="/")
    (home / "data" / "pg_hba.conf").write_text("hostssl all all 127.0.0.0/8 trust\n")
    options = {
        "listen_addresses": address, "port": str(port), "unix_socket_directories": "", "ssl": "on",
        "ssl_cert_file": str(home / "server.crt"), "ssl_key_file": str(home / "server.key"),
    }  # fmt: skip
    argv = [*as_nobody, *(["--pdeathsig=KILL"] if root else []), str(programs / "postgres"), "-D", str(home / "data")]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    ready = str(programs / "pg_isready")
    supervisor = Supervisor(folder)
    supervisor.add(
        Process(
            "postgresql",
            argv,
            {"PATH": os.environ["PATH"]},
            lambda: subprocess.run([ready, "-h", address, "-p", str(port), "-q"], check=False).returncode == 0,
            Path("/"),
        )
    )
    supervisor.start(lambda text: None)
    yield address, port, folder
    supervisor.stop()
    shutil.rmtree(home, ignore_errors=True)


def opened(server: tuple[str, int, Path], host: str, query: str) -> Ledger:
    _, port, _ = server
    return Ledger.open(f"postgresql+psycopg://postgres@{host}:{port}/postgres?{query}")


def test_the_ledger_works_over_a_connection_whose_server_is_checked(server: tuple[str, int, Path]) -> None:
    address, _, folder = server
    ledger = opened(server, address, f"sslmode=verify-full&sslrootcert={folder / 'ca.pem'}")

    ledger.migrate()

    with ledger.engine.connect() as connection:
        on = connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()
    assert on is True
    ledger.close()


@pytest.mark.parametrize(
    ("host", "query", "why"),
    [
        ("{address}", "sslmode=verify-full&sslrootcert={folder}/other.pem", "certificate verify failed"),
        (
            "another.example.com",
            "sslmode=verify-full&sslrootcert={folder}/ca.pem&hostaddr={address}",
            "does not match host name",
        ),
        ("{address}", "sslmode=disable", "no encryption"),
    ],
    ids=["another authority", "another name", "no TLS"],
)
def test_a_server_that_is_not_who_it_should_be_gets_nothing_and_is_waited_for(
    host: str, query: str, why: str, server: tuple[str, int, Path]
) -> None:
    address, _, folder = server
    known = {"address": address, "folder": folder}
    ledger = opened(server, host.format(**known), query.format(**known))

    with pytest.raises(TryLater, match=why):
        ledger.migrate()
    ledger.close()
