"""Requirements of handlers: installed once, in a sandbox that reaches the index alone, seen by their own run alone."""

from __future__ import annotations

import io
import socket
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from executor.index import PYPI, index_of
from executor.packages import Bounds, IndexAway, Packages, _unpack, normalized
from executor.sandbox.index import IndexProxy
from executor.sandbox.job import MIB, Access, Ended, RequirementsRefused, Runtime
from executor.sandbox.levels import Level
from executor.sandbox.runtime import SandboxedRuntime
from executor.sandbox.zygote import Zygote
from schemas.records import Outcome
from tests.executor.sandbox.conftest import make_job
from tests.package_index import PackageIndex, serving

NAME = "py3.11"
BOUNDS = Bounds(64 * MIB, 16 * MIB, 120.0, 512 * MIB)


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with serving() as started:
        started.add("greeting", "1.0", {"greeting.py": "WORD = 'hello'\n"}, ["punctuation>=1"])
        started.add("punctuation", "1.1", {"punctuation.py": "MARK = '!'\n"})
        yield started


@pytest.fixture
def make(tmp_path: Path, index: PackageIndex) -> Callable[..., Packages]:
    """Caches in one folder."""

    def made(bounds: Bounds = BOUNDS, url: str = "") -> Packages:
        found = index_of(url, "", None) if url else index.of()
        return Packages(tmp_path / "packages", {NAME: Path(sys.executable)}, found, bounds)

    return made


def run_with(packages: Packages, handler: Callable[..., object], lock: str) -> Ended:
    runtime = SandboxedRuntime(
        Runtime(NAME, Path(sys.executable)), Access(None, packages=packages.folder), warm=1, scratch_bytes=64 * MIB
    )
    runtime.start()
    try:
        return runtime.run(make_job(handler, packages=lock))
    finally:
        runtime.close()


def test_a_run_finds_its_requirements_and_what_they_need_and_another_run_does_not(
    make: Callable[..., Packages],
) -> None:
    def handler(**kwargs: object) -> str:
        import os

        import greeting  # type: ignore[import-not-found]
        import punctuation  # type: ignore[import-not-found]

        try:
            open(greeting.__file__, "a")
        except OSError as error:
            return f"{greeting.WORD}{punctuation.MARK} {error.strerror} {os.path.dirname(greeting.__file__)[:10]}"
        return "it may be written"

    def other(**kwargs: object) -> str:
        import importlib.util
        import os

        seen = []
        for folder in ("/packages", "/.packages"):
            try:
                seen += os.listdir(folder)
            except OSError:
                continue
        return f"{importlib.util.find_spec('greeting')} {seen}"

    packages = make()
    with packages.lent(NAME, ["Greeting >= 1"]) as lock:
        ended, without = run_with(packages, handler, lock), run_with(packages, other, "")

    assert ended.outcome is Outcome.SUCCEEDED
    assert ended.text in ("hello! Read-only file system /packages/", "hello! Permission denied /packages/")
    assert without.text == "None []"


def test_runs_that_need_the_same_at_once_have_it_made_once(make: Callable[..., Packages], index: PackageIndex) -> None:
    packages, asked = make(), len(index.asked)

    def lend(spelling: str) -> str:
        with packages.lent(NAME, [spelling]) as lock:
            return lock

    with ThreadPoolExecutor(4) as pool:
        locks = set(pool.map(lend, ["punctuation", "Punctuation", "punctuation ", "punctuation"]))

    assert len(locks) == 1
    assert [path for path in index.asked[asked:] if path.endswith(".whl")] == [
        "/files/punctuation/punctuation-1.1-py3-none-any.whl"
    ]
    assert lend("punctuation") in locks


def test_what_is_missing_or_in_conflict_is_named_and_the_refusal_is_remembered_for_a_while(
    make: Callable[..., Packages], index: PackageIndex
) -> None:
    packages = make()
    index.add_file("only-source", "only-source-1.0.tar.gz", b"no wheel")
    for requirement, named in (
        ("nowhere>=2", "nowhere"),
        ("only-source", "only-source"),
        ("numpy<1.10", "The user requested (constraint) numpy=="),
    ):
        with pytest.raises(RequirementsRefused) as caught, packages.lent(NAME, [requirement]):
            pass
        assert named in str(caught.value)

    asked = len(index.asked)
    with pytest.raises(RequirementsRefused, match="nowhere"), packages.lent(NAME, ["nowhere>=2"]):
        pass
    assert len(index.asked) == asked


def test_an_index_that_is_away_refuses_nothing(make: Callable[..., Packages], index: PackageIndex) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        pytest.raises(IndexAway, match=f"127.0.0.1:{port}"),
        make(url=f"http://127.0.0.1:{port}/simple").lent(NAME, ["x"]),
    ):
        pass

    index.broken = True
    try:
        with pytest.raises(IndexAway), make().lent(NAME, ["punctuation<9"]):
            pass
    finally:
        index.broken = False
    with make().lent(NAME, ["punctuation<9"]):
        pass


def test_the_longest_unused_goes_first_and_none_that_a_run_uses(make: Callable[..., Packages]) -> None:
    small = make(Bounds(1, 16 * MIB, 120.0, 512 * MIB))
    with small.lent(NAME, ["punctuation"]) as first:
        with small.lent(NAME, ["punctuation==1.1"]) as second:
            kept = {path.name for path in small.folder.iterdir()}
        with small.lent(NAME, ["punctuation>=1"]) as third:
            left = {path.name for path in small.folder.iterdir()}

    assert kept == {first, second}
    assert left == {first, third}


def test_more_than_may_be_installed_is_refused_with_the_limit(
    make: Callable[..., Packages], index: PackageIndex
) -> None:
    index.add("large", "1.0", {"large.py": "#" * (8 * MIB)})

    with (
        pytest.raises(RequirementsRefused, match="more than the 1 MiB that they may"),
        make(Bounds(MIB, MIB, 120.0, 512 * MIB)).lent(NAME, ["large"]),
    ):
        pass


def test_a_folder_that_others_may_write_is_refused_at_start(make: Callable[..., Packages], tmp_path: Path) -> None:
    make()
    (tmp_path / "packages").chmod(0o777)

    with pytest.raises(ValueError, match=r"EXECUTOR_PACKAGES_DIR: .* nobody else may write"):
        make()


def test_requirements_are_spelled_in_one_way_and_have_no_address() -> None:
    assert normalized(["Foo_Bar >=1, <2", "foo.bar<2,>=1", "a"]) == ("a", "foo-bar<2,>=1")
    with pytest.raises(RequirementsRefused, match="names an address"):
        normalized(["a @ https://example.com/a.whl"])
    with pytest.raises(RequirementsRefused, match="is no requirement"):
        normalized(["--index-url=https://example.com"])


def test_a_sandbox_without_mounts_refuses_requirements(tmp_path: Path) -> None:
    zygote = Zygote(Runtime(NAME, Path(sys.executable)), Access(None, packages=tmp_path), Level.POD)
    zygote.start()
    try:
        with pytest.raises(RequirementsRefused, match="level pod"):
            zygote.spawn(64 * MIB, "lock")
    finally:
        zygote.close()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_files_and_folders_come_out_of_the_installers_sandbox(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("lib/evil")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "packed", "w") as tar:
        tar.addfile(member)

    with pytest.raises(RequirementsRefused, match="neither file nor folder"):
        _unpack(tmp_path / "packed", tmp_path / "out")


def test_no_file_is_put_outside_of_the_lock(tmp_path: Path) -> None:
    member = tarfile.TarInfo("../outside")
    with tarfile.open(tmp_path / "packed", "w") as tar:
        tar.addfile(member, io.BytesIO(b""))

    with pytest.raises(RequirementsRefused, match="cannot be kept"):
        _unpack(tmp_path / "packed", tmp_path / "out")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "request_line",
    ["CONNECT 127.0.0.1:{other} HTTP/1.1", "GET http://127.0.0.1:{other}/ HTTP/1.1", "POST {url} HTTP/1.1"],
)
def test_the_way_out_goes_to_the_index_and_nowhere_else(index: PackageIndex, request_line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as listener:
        other.settimeout(0.2)
        end = IndexProxy(index.of().hosts).serve(listener.dup())
        with socket.create_connection(listener.getsockname()) as pip:
            line = request_line.format(other=other.getsockname()[1], url=index.url)
            pip.sendall(f"{line}\r\nHost: x\r\n\r\n".encode())
            assert pip.recv(100).startswith(b"HTTP/1.1 403 Not the package index")
        end()
        with pytest.raises(TimeoutError):
            other.accept()


def test_an_executor_asks_pip_for_the_index_unless_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:word@packages.example.com:8443/simple")
    monkeypatch.setenv("PIP_CERT", str(tmp_path))

    asked = index_of("", "files.example.com, other.example.com:81", None)
    told = index_of(PYPI, "", None)

    assert asked.hosts == {("packages.example.com", 8443), ("files.example.com", 443), ("other.example.com", 81)}
    assert asked.ca_bundle == tmp_path
    assert told.hosts == {("pypi.org", 443), ("files.pythonhosted.org", 443)}
    with pytest.raises(ValueError, match="should be an address"):
        index_of("pypi.org", "", None)
