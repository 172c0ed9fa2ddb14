"""Requirements: pip installs them in a sandbox of its own, and a run shows its handler what was installed."""

import os
import re
import site
import socket
import subprocess
import sys
import tarfile
from typing import Any, Dict, List

from . import frames

OUT, PACKED, PINS, LOG = "/tmp/out", "/tmp/packages.tar", "/tmp/pins.txt", "/tmp/pip.log"
CODE = "0" * 32
_AWAY = re.compile(
    r"too many 5\d\d error|5\d\d Server Error|HTTP error 5\d\d|connection broken|Read timed out|connection error"
)
"""What pip says of an index that does not answer as it should, and not of a package that it does not have."""
_PIP = [sys.executable, "-m", "pip"]


def show(at: str) -> None:
    """What was installed beneath a folder can be imported, after the runtime's own packages."""
    site.addsitedir(_site_packages(at))


def _site_packages(prefix: str) -> str:
    return "%s/lib/python%d.%d/site-packages" % (prefix, sys.version_info[0], sys.version_info[1])


def install(channel: socket.socket, given: Dict[str, Any], limit: int) -> Dict[str, Any]:
    """Has pip resolve and install, wheels only, what the runtime does not have already; sends it as one tar file.

    The runtime's own packages are pinned: it has imported them, so that other versions could not take their place.
    """
    environment = dict(os.environ, **given["environment"])
    listed = _run([*_PIP, "list", "--format=freeze"], environment)
    if listed.returncode:
        return _ended("this runtime has no pip: %s" % listed.stdout[-500:], limit)
    pins = [line for line in listed.stdout.splitlines() if "==" in line and not line.startswith(("-", " "))]
    with open(PINS, "w") as file:
        file.write("\n".join(pins))
    options = ["--prefix", OUT, "--only-binary", ":all:", "--constraint", PINS, "--no-warn-script-location"]
    done = _run([*_PIP, "install", "--log", LOG, *options, "--", *given["requirements"]], environment)
    sys.stdout.write(done.stdout[-limit:])
    sys.stdout.flush()
    if done.returncode:
        with open(LOG, errors="replace") as log:  # that an index answers with errors pip tells nowhere else
            away = any(_AWAY.search(line) for line in log)
        return _ended(_reason(done.stdout), limit, "IndexAway" if away else "Refused")
    os.makedirs(_site_packages(OUT), exist_ok=True)
    with tarfile.open(PACKED, "w") as packed:
        packed.add(OUT, arcname=".")
    descriptor = os.open(PACKED, os.O_RDONLY | os.O_CLOEXEC)
    frames.send(channel, {"kind": "upload", "code": CODE, "name": "packages.tar"}, [descriptor])
    os.close(descriptor)
    return {"kind": "ended", "outcome": "succeeded", "text": "", "error": None}


def _run(command: List[str], environment: Dict[str, str]) -> Any:
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )


def _reason(said: str) -> str:
    """pip's own errors and what they conflict with, without its hints and addresses."""
    kept = []
    for line in said.splitlines():
        line = line.strip()
        if "ResolutionImpossible" in line:
            continue
        if line.startswith(("ERROR:", "The user requested")) or " depends on " in line:
            kept.append(line[len("ERROR: ") :] if line.startswith("ERROR: ") else line)
    return "; ".join(dict.fromkeys(kept)) or said[-1000:]


def _ended(message: str, limit: int, kind: str = "Refused") -> Dict[str, Any]:
    error = {"type": kind, "message": message[:limit], "traceback": ""}
    return {"kind": "ended", "outcome": "failed", "text": "", "error": error}
