"""The runtimes of executor/runtimes/: built on this machine, and resolved anew. One file there is one runtime."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "executor" / "runtimes"
BUILT = ROOT / ".cache" / "runtimes"
AT_ONCE = 2
_FORM = "2"  # of what a build does; a new one builds all anew
_NAME = re.compile(r"(py(\d+\.\d+))(-full)?\.txt")
_PLATFORM = "x86_64-manylinux_2_28"

Progress = Callable[[str], None]


class BuildFailed(Exception):
    """A runtime could not be built; says which, and where the rest of it is to be read."""


@dataclass(frozen=True)
class Listed:
    """One file: name as in a task ('py3.7'), minor as '3.7', oldest: the oldest Python that the versions suit ('3.6.1').

    wants: what was asked for, by name; the file's other lines pin it.
    """

    name: str
    minor: str
    oldest: str
    wants: tuple[str, ...]
    file: Path
    full: bool


def listed(folder: Path = LISTS) -> list[Listed]:
    """Every list in the folder, the oldest Python first. Raises ValueError for a file that is none."""
    found = []
    for file in folder.glob("*.txt"):
        named = _NAME.fullmatch(file.name)
        heads = dict(re.findall(r"^# (python|packages): (.+)$", file.read_text(), re.MULTILINE))
        if named is None or set(heads) != {"python", "packages"}:
            raise ValueError(
                f"{file}: a runtime's file is named like py3.14.txt and begins with '# python: 3.14' and '# packages: btrdb[data], dill'"
            )
        wants = tuple(name.strip() for name in heads["packages"].split(",") if name.strip())
        found.append(Listed(named[1], named[2], heads["python"].strip(), wants, file, named[3] is not None))
    return sorted(found, key=lambda one: ([int(part) for part in one.minor.split(".")], one.full))


def chosen(folder: Path = LISTS, full: bool = False) -> list[Listed]:
    """One list a runtime: the core one, or the full one where it is wanted and there is one."""
    by_name: dict[str, Listed] = {}
    for one in listed(folder):
        if one.name not in by_name or one.full == full:
            by_name[one.name] = one
    return list(by_name.values())


def interpreters() -> dict[str, Path]:
    """The Pythons found here, by minor version ('3.7'): pyenv's, those on PATH, this one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = sorted(pyenv.glob("versions/3.*/bin/python"), reverse=True)
    for folder in [
        Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry and "shims" not in entry
    ]:
        candidates += sorted(folder.glob("python3.[0-9]")) + sorted(folder.glob("python3.[0-9][0-9]"))
    candidates += [Path("/usr/bin/python3"), Path(getattr(sys, "_base_executable", sys.executable))]
    found: dict[str, Path] = {}
    for path in candidates:
        minor = _minor(path)
        if minor:
            found.setdefault(minor, path)
    return found


def _minor(path: Path) -> str:
    """'3.7'; empty for what is no Python 3, or can make no virtual environment."""
    asked = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(path), "-c", asked], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.stdout.startswith("3.") else ""


def built(folder: Path = BUILT) -> dict[str, Path]:
    """What `make runtimes` has made and what is still as its list says: name -> interpreter, the oldest Python first."""
    found = {}
    for one in listed():
        if _is_built(folder, one):
            found[one.name] = folder / one.name / "bin" / "python"
    return found


def build(
    progress: Progress,
    names: Collection[str] = (),
    full: bool = False,
    lists: Path = LISTS,
    into: Path = BUILT,
    pythons: Mapping[str, Path] | None = None,
) -> dict[str, Path]:
    """Builds the runtimes whose Python is here, AT_ONCE at a time; what is as its list says is left as it is.

    names: only these. Returns name -> interpreter. Raises BuildFailed for an unknown name, and when one could not be built,
    after the others are done. Blocks for minutes the first time.
    """
    pythons = interpreters() if pythons is None else pythons
    lists_of = {one.name: one for one in chosen(lists, full)}
    if unknown := [name for name in names if name not in lists_of]:
        raise BuildFailed(f"there is no runtime {', '.join(unknown)}; there are {', '.join(lists_of)} in {lists}")
    done: dict[str, Path] = {}
    waiting: list[Listed] = []
    for one in lists_of.values():
        if names and one.name not in names:
            continue
        python = into / one.name / "bin" / "python"
        if one.minor not in pythons:
            progress(f"{one.name}: left out, this machine has no Python {one.minor}")
        elif _is_built(into, one, _client_stamp()) and python.exists():
            done[one.name] = python
        else:
            waiting.append(one)
    if done:
        progress(f"built already: {', '.join(done)}")
    failures: list[str] = []

    def make(one: Listed, client: Path) -> None:
        try:
            done[one.name] = _make(one, pythons[one.minor], into, client, progress)
        except (BuildFailed, OSError) as error:
            failures.append(str(error))

    if waiting:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
            client = _client_wheel(Path(scratch))
            list(pool.map(lambda one: make(one, client), waiting))
    if failures:
        raise BuildFailed("\n".join(failures))
    return {name: done[name] for name in lists_of if name in done}


def _client_wheel(scratch: Path) -> Path:
    """Our client as a wheel, made from a copy: a build leaves its traces in the folder, and old Pythons have no builder."""
    shutil.copytree(ROOT / "client", scratch / "client", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(scratch)]
    done = subprocess.run([*command, str(scratch / "client")], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"the client in client/ could not be built: {done.stderr[-1000:]}")
    return next(scratch.glob("*.whl"))


def _make(one: Listed, python: Path, into: Path, client: Path, progress: Progress) -> Path:
    began = time.monotonic()
    home = into / one.name
    pins = pinned(one.file.read_text())
    if not pins:
        raise BuildFailed(f"{one.name}: {one.file} pins nothing yet; `make lock-runtimes` resolves it")
    client_alone = _is_built(into, one)
    if client_alone:
        progress(f"{one.name}: our client has changed")
    else:
        progress(f"{one.name}: {len(pins)} packages for {python}")
        shutil.rmtree(home, ignore_errors=True)
    log = into / f"{one.name}.log"
    own = home / "bin" / "python"
    pip = [str(own), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    exactly = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r"]
    with log.open("w") as said, tempfile.TemporaryDirectory() as scratch:
        # an interpreter's own pip may be too old to know today's wheels; it can fetch the newer one of the list
        (Path(scratch) / "pip.txt").write_text(pins.get("pip", ""))
        steps = [
            [str(python), "-m", "venv", str(home)],
            [*pip, *exactly, f"{scratch}/pip.txt"],
            [*pip, *exactly, str(one.file)],
            [*pip, "--no-deps", "--force-reinstall", str(client)],
        ]
        if client_alone:
            steps = steps[-1:]
        for step in steps:
            if subprocess.run(
                step, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
            ).returncode:
                last = " / ".join(log.read_text().strip().splitlines()[-3:])
                raise BuildFailed(f"{one.name} could not be built: {last}; all of it is in {log}")
    _stamp_file(into, one).write_text(f"{_stamp(one)}\n{_client_stamp()}\n")
    progress(f"{one.name}: built in {time.monotonic() - began:.0f} s")
    return own


def pinned(text: str) -> dict[str, str]:
    """The packages of a list, name -> its lines, the last with its line break."""
    return {found[1]: found[0] for found in re.finditer(r"^([\w.-]+)==(?:.*\\\n)*.*\n", text, re.MULTILINE)}


def _stamp_file(folder: Path, one: Listed) -> Path:
    return folder / one.name / ".built"


def _stamp(one: Listed) -> str:
    """Changes with everything that a build is made of, but for the interpreter's own patches and our client."""
    return hashlib.sha256(_FORM.encode() + one.file.read_bytes()).hexdigest()


def _client_stamp() -> str:
    """Changes with our client."""
    whole = hashlib.sha256()
    for file in sorted((ROOT / "client").rglob("*")):
        if file.suffix in (".py", ".toml", ".cfg") and "build" not in file.parts:
            whole.update(file.read_bytes())
    return whole.hexdigest()


def _is_built(folder: Path, one: Listed, client: str = "") -> bool:
    """Whether its list is as it was built; with client: and our client too."""
    stamp = _stamp_file(folder, one)
    lines = stamp.read_text().splitlines() if stamp.exists() else []
    return lines[:1] == [_stamp(one)] and (not client or lines[1:] == [client])


def lock(progress: Progress, names: Collection[str] = (), folder: Path = LISTS) -> None:
    """Resolves the lists anew, wheels only, with hashes and no index address; blocks for minutes.

    names: only these runtimes. Raises CalledProcessError when one does not resolve; uv has said why on stderr.
    """
    with tempfile.TemporaryDirectory() as home:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([f"{home}/bin/pip", "install", "-q", "uv"], check=True)
        for one in listed(folder):
            if names and one.name not in names:
                continue
            progress(f"{one.file.name}: {', '.join(one.wants)}")
            pins = subprocess.run(
                [f"{home}/bin/uv", "pip", "compile", "-q", "-", "--python-version", one.oldest, "--python-platform", _PLATFORM,
                 "--no-build", "--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"],
                input="\n".join(one.wants), text=True, check=True, stdout=subprocess.PIPE, env={**os.environ, "UV_NATIVE_TLS": "true"},
            ).stdout  # fmt: skip
            heads = [line for line in one.file.read_text().splitlines() if line.startswith("#")]
            one.file.write_text("\n".join(heads) + "\n" + pins)
