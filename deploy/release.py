"""make release VERSION=6.1.0: one version for stations, images, chart and client, in every place that names it.

python -m deploy.release 6.1.0 [--check]. It writes the version everywhere, gives the changelog's unreleased part its name and date,
keeps the wire as it now is for the next release to be held against, commits, tags v6.1.0, and builds the client's wheel into dist/.
Nothing leaves the machine: push the tag when you are content.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.contracts import hook_names
from schemas.encoding import decode, encode

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+")
PLACES = {
    "pyproject.toml": r'^version = "(.*)"$',
    "client/setup.cfg": r"^version = (.*)$",
    "client/btrdbextras/__init__.py": r'^__version__ = "(.*)"$',
    "deploy/helm/eventproc/Chart.yaml": r'^version: "?([^"\n]*)"?$',
    "deploy/helm/eventproc/Chart.yaml appVersion": r'^appVersion: "?([^"\n]*)"?$',
}
"""Where the version stands, and how; the images' tag is the chart's appVersion."""
NS = 1_700_000_000_000_000_000


class NotReleased(Exception):
    """Why not; nothing has been changed."""


def versions(root: Path) -> dict[str, str]:
    """By place, the version that stands there; places whose file is not there are left out."""
    found = {}
    for place, pattern in PLACES.items():
        path = root / place.split()[0]
        if path.exists():
            match = re.search(pattern, path.read_text(), re.MULTILINE)
            found[place] = match[1] if match else ""
    return found


def present(root: Path) -> str:
    """The one version; raises NotReleased when there are several."""
    found = versions(root)
    if len(set(found.values())) != 1:
        raise NotReleased("the places name several versions: " + ", ".join(f"{p} {v}" for p, v in found.items()))
    return next(iter(found.values()))


def release(root: Path, version: str, today: datetime.date) -> None:
    """Does all of it in the work tree at root. Raises NotReleased."""
    _check(root, version)
    for place, pattern in PLACES.items():
        path = root / place.split()[0]
        if path.exists():
            path.write_text(
                re.sub(pattern, lambda m: m[0].replace(m[1], version), path.read_text(), count=1, flags=re.M)
            )
    changelog = root / "CHANGELOG.md"
    named = f"## Unreleased\n\n## {version} ({today.isoformat()})\n"
    changelog.write_text(changelog.read_text().replace("## Unreleased\n", named, 1))
    freeze(root)
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", f"Release {version}")
    _git(root, "tag", "-a", f"v{version}", "-m", f"Release {version}")


def freeze(root: Path) -> None:
    """Keeps the protos and a message of each kind as they are now; tests hold what comes after to them."""
    history = root / "schemas" / "history" / "proto"
    newest = max((int(folder.name) for folder in history.iterdir()), default=0) if history.exists() else 0
    protos = sorted((root / "schemas" / "proto").glob("*.proto"))
    kept = history / str(newest)
    if not newest or any(
        not (kept / p.name).exists() or (kept / p.name).read_bytes() != p.read_bytes() for p in protos
    ):
        kept = history / str(newest + 1)
        kept.mkdir(parents=True)
        for proto in protos:
            shutil.copy(proto, kept)
    folder = root / "tests" / "schemas" / "last_release"
    folder.mkdir(parents=True, exist_ok=True)
    for name, plain in samples().items():
        message = encode(name, plain)
        body = {"message": base64.b64encode(message).decode(), "means": as_json(decode(name, message))}
        (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")


def as_json(plain: Mapping[str, Any]) -> Any:
    """The mapping with bytes in base64, as JSON has it."""
    return json.loads(json.dumps(plain, default=lambda value: base64.b64encode(value).decode()))


def samples() -> dict[str, dict[str, Any]]:
    """A message of each kind, with something in its fields."""
    stream = {"Uuid": "5e0c7a9e-6c5c-4a52-9d8a-0b8f0d9d2c11", "StartNs": NS, "EndNs": NS + 1, "ProcessedAtNs": NS + 2}
    event = {
        "DataSets": [
            {"Name": "/a.cfg", "Success": True, "Error": "", "Streams": [stream]},
            {"Name": "/b.cfg", "Success": False, "Error": "it ends too early", "Streams": None},
        ],
        "File": "fault.zip", "RequestID": "0a1b2c3d-0000-4000-8000-000000000001",
        "SubmittedAt": "2020-10-29T21:58:15.09246084Z", "Tags": ["north", "line-4"], "Recordings": [],
    }  # fmt: skip
    run = "0a1b2c3d-0000-5000-8000-000000000002"
    return {
        **dict.fromkeys(hook_names(), event),
        "task": {"run_id": run, "owner": "alice", "runtime": "py3.11", "hook": hook_names()[0], "dispatched_at_ns": NS},
        "result": {
            "run_id": run, "lease_id": "ab" * 16, "executor": "executor-1", "outcome": "failed", "text": "half of it",
            "error": {"type": "ValueError", "message": "no such stream", "traceback": "line 1"}, "log": "printed\n",
            "log_truncated": True, "uploads": [{"code": "cd" * 16, "name": "a.csv", "size": 12}],
            "started_at_ns": NS, "ended_at_ns": NS + 5, "cpu_s": 0.25, "peak_memory_bytes": 1 << 27,
        },
        "dead_letter": {
            "topic": "ctingress.on_complete", "partition": 3, "offset": 1 << 33, "key": b"k", "value": b"\x00\xff",
            "headers": [{"name": "ce_id", "value": b"1"}], "group": "eventproc-dispatcher", "reason": "not readable",
            "at_ns": NS,
        },
    }  # fmt: skip


def _check(root: Path, version: str) -> None:
    if not VERSION.fullmatch(version):
        raise NotReleased(f"{version!r} is no version; 6.1.0 would be (https://semver.org/)")
    if _git(root, "status", "--porcelain"):
        raise NotReleased("there are changes that are not committed; commit or put them away first")
    if f"v{version}" in _git(root, "tag").split():
        raise NotReleased(f"v{version} was released before")
    now = present(root)
    if _numbers(version) < _numbers(now):
        raise NotReleased(f"{version} is lower than {now}, which is here")
    changes = re.search(
        r"## Unreleased\n(.*?)(?=^## |\Z)", (root / "CHANGELOG.md").read_text(), re.DOTALL | re.MULTILINE
    )
    if changes is None or not changes[1].strip():
        raise NotReleased("CHANGELOG.md has nothing under '## Unreleased'")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReleased(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def build(root: Path) -> None:
    """The client's wheel and source, and the chart where helm is there, into dist/."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", "dist", "./client"]
    subprocess.run(command, cwd=root, check=True)
    chart = root / "deploy" / "helm" / "eventproc"
    helm = shutil.which("helm")
    if chart.exists() and helm:
        subprocess.run([helm, "package", str(chart), "--destination", "dist"], cwd=root, check=True)


def main(say: Callable[[str], None] = print) -> int:
    """0: released, or --check found that it could be; 1: not, and why."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--check", action="store_true", help="say whether it could be released; change nothing")
    given = parser.parse_args()
    try:
        if given.check:
            _check(ROOT, given.version)
            say(f"{given.version} can be released")
            return 0
        release(ROOT, given.version, datetime.datetime.now(datetime.UTC).date())
    except NotReleased as error:
        say(f"not released: {error}")
        return 1
    build(ROOT)
    say(f"released {given.version}: git push --follow-tags; make images builds the images of this version; see dist/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
