"""eventproc and servers over TLS: names of files within one download, and servers that are none."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from devstack.certificates import Certificates, make_certificates

from .conftest import Say, served


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """Of 127.0.0.1, trusted; alice has a key."""
    made = make_certificates(tmp_path / "tls", "127.0.0.1")
    for name, value in (
        ("BTRDB_CA_BUNDLE", str(made.ca)), ("BTRDB_ENDPOINTS", "127.0.0.1:9"), ("BTRDB_API_KEY", "key"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    return made


def files(names: list[str]) -> Any:
    """An application that has a file of names[n] at /n, with its place as content."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content = scope["path"][1:].encode()
        name = f"attachment; filename*=UTF-8''{quote(names[int(content)])}"
        headers = [(b"content-disposition", name.encode()), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


@pytest.fixture
def downloaded(tls: Certificates, say: Say, tmp_path: Path) -> Callable[[list[str]], dict[str, str]]:
    """Downloads files of the names that are given, in one call; gives names and contents of what is saved."""

    def download(names: list[str]) -> dict[str, str]:
        with served(files(names), tls) as url:
            said = say("download", *(f"{url}/{number}" for number in range(len(names))), "-o", str(tmp_path / "out"))
        assert said.code == 0, said.err
        saved = sorted((tmp_path / "out").iterdir())
        assert sorted(said.out.splitlines()) == [str(path) for path in saved]
        return {path.name: path.read_text() for path in saved}

    return download


def test_files_of_one_name_are_numbered(downloaded: Callable[[list[str]], dict[str, str]]) -> None:
    found = downloaded(["plot.png", "plot.png", "PLOT.png", "plot-2.png", "log", "log"])

    assert found == {
        "plot.png": "0", "plot-2.png": "1", "PLOT-3.png": "2", "plot-2-2.png": "3", "log": "4", "log-2": "5",
    }  # fmt: skip


def test_a_name_that_no_file_system_takes_is_cut_and_keeps_its_ending(
    downloaded: Callable[[list[str]], dict[str, str]],
) -> None:
    found = downloaded(["ü" * 200 + ".png"] * 2)

    assert found == {"ü" * 125 + ".png": "0", "ü" * 124 + "-2.png": "1"}


def test_a_file_that_is_there_already_is_kept(tls: Certificates, say: Say, tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_text("mine")
    with served(files(["plot.png"]), tls) as url:
        said = say("download", f"{url}/0", "-o", str(tmp_path))
        assert said.code == 2 and "plot.png is there already; --force writes over it" in said.err
        assert (tmp_path / "plot.png").read_text() == "mine"
        assert say("download", f"{url}/0", "-o", str(tmp_path), "--force").code == 0
    assert (tmp_path / "plot.png").read_text() == "0"


@contextmanager
def answering(answer: bytes, tls: Certificates | None) -> Iterator[int]:
    """The port of a server, over TLS where certificates are given, that answers everybody so and hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls is not None:
        context.load_cert_chain(tls.cert, tls.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(one, server_side=True) if tls is not None else one as shaken:
                    shaken.recv(4096)
                    shaken.sendall(answer)
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_server_that_is_none_is_told_and_what_it_lacks(tls: Certificates, say: Say) -> None:
    with answering(b"220 mail.example.com ESMTP\r\n", tls) as port:
        said = say("download", f"https://127.0.0.1:{port}/a")
        assert said.code == 3
        assert "answers, but not as a server of HTTP does (BadStatusLine" in said.err
        said = say("download", f"https://localhost:{port}/a")
        assert said.code == 3
        assert "certificate of localhost" in said.err and "host name" in said.err
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", tls) as port:
        said = say("upload", __file__, "--ingress", f"https://127.0.0.1:{port}")
        assert said.code == 3
        assert "answers, but not as the platform does ('hello'); check the address" in said.err
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n", None) as port:
        said = say("download", f"https://127.0.0.1:{port}/a")
        assert said.code == 3
        assert "does not speak TLS" in said.err
