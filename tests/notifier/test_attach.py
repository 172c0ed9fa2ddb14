"""What becomes of a run's files in its email: links, and pictures inside."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from ledger.outbox import Mail
from ledger.runs import RunView
from notifier.attach import Files
from notifier.render import render
from objectstore import ObjectStore
from schemas.records import Upload, stored_name

MakeRun = Callable[..., RunView]
MakeMail = Callable[..., Mail]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
SVG = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path / 'files'}")


@pytest.fixture
def uploaded(run: MakeRun, store: ObjectStore, tmp_path: Path) -> Callable[..., RunView]:
    """A run that uploaded files of these names and contents."""

    def make(**contents: bytes) -> RunView:
        uploads = [
            Upload(f"{n:032x}", name.replace("_", "."), len(body)) for n, (name, body) in enumerate(contents.items())
        ]
        made = run(uploads=tuple(uploads))
        for upload, body in zip(uploads, contents.values(), strict=True):
            (tmp_path / "one").write_bytes(body)
            store.put(tmp_path / "one", stored_name(made.run_id, upload.code))
        return made

    return make


def received(mail: Mail, files: Files) -> EmailMessage:
    wire = render(mail, "eventproc@example.com", files).as_bytes()
    wire.decode("ascii")
    message = email.message_from_bytes(wire, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def pictures(message: EmailMessage) -> dict[str, bytes]:
    return {
        str(part["Content-ID"]): part.get_payload(decode=True)  # type: ignore[misc]
        for part in message.walk()
        if part.get_content_maintype() == "image"
    }


def test_files_are_linked_in_text_and_html(
    uploaded: Callable[..., RunView], mail: MakeMail, store: ObjectStore
) -> None:
    given = uploaded(table_csv=b"a,b\n")
    message = received(mail(given), Files("downloads.example.com", store))
    link = f"https://downloads.example.com/{0:032x}"
    assert f"* table.csv, 4 B\n  {link}\n" in body(message, "plain").replace("\r\n", "\n")
    assert f'href="{link}"' in body(message, "html")
    assert pictures(message) == {}


def test_pictures_are_shown_where_the_html_refers_to_them(
    uploaded: Callable[..., RunView], mail: MakeMail, store: ObjectStore
) -> None:
    message = received(mail(uploaded(plot_png=PNG, drawing_svg=SVG)), Files("d.example.com", store))
    assert pictures(message) == {f"<{0:032x}>": PNG, f"<{1:032x}>": SVG}
    html = body(message, "html")
    assert f'src="cid:{0:032x}" alt="plot.png"' in html and f'src="cid:{1:032x}"' in html
    assert message.get_content_type() == "multipart/alternative"
    related = list(message.iter_parts())[1]
    assert related.get_content_type() == "multipart/related"


def test_no_file_name_can_add_a_header(uploaded: Callable[..., RunView], mail: MakeMail, store: ObjectStore) -> None:
    evil = ["=?utf-8?q?x=0D=0AX-Evil:=201=0D=0A=0D=0Abody?=.png", "a\r\nX-Evil: 1\r\n\r\nb.png", 'x"; y="\u00e9.png']
    message = received(mail(uploaded(**dict.fromkeys(evil, PNG))), Files("d.example.com", store))
    assert list(pictures(message).values()) == [PNG] * 3
    images = [part for part in message.walk() if part.get_content_maintype() == "image"]
    assert {tuple(part.keys()) for part in images} == {tuple(images[0].keys())}
    assert all(part["X-Evil"] is None for part in message.walk())


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (Files("d.example.com", None), "no storage is known"),
        (Files("d.example.com", ObjectStore("file:///nonexistent/eventproc")), "the storage has lost it"),
    ],
)
def test_without_its_content_a_picture_is_a_link(run: MakeRun, mail: MakeMail, files: Files, why: str) -> None:
    message = received(mail(run(uploads=(Upload("a" * 32, "plot.png", 100),))), files)
    assert pictures(message) == {}, why
    assert f"https://d.example.com/{'a' * 32}" in body(message, "html")


def test_large_false_and_too_many_pictures_are_links(
    uploaded: Callable[..., RunView], mail: MakeMail, store: ObjectStore
) -> None:
    given = uploaded(large_png=PNG + bytes(5000), page_png=b"<html><script>", one_png=PNG, two_png=PNG)
    message = received(mail(given), Files("d.example.com", store, picture_bytes=2000, email_bytes=2000))
    assert list(pictures(message)) == [f"<{2:032x}>"]
    assert body(message, "html").count("https://d.example.com/") == 4


def test_without_a_download_service_files_are_named(run: MakeRun, mail: MakeMail) -> None:
    message = received(mail(run(uploads=(Upload("a" * 32, "<b>.csv", 2048),))), Files())
    assert "* <b>.csv, 2 KiB" in body(message, "plain")
    assert "&lt;b&gt;.csv" in body(message, "html") and "<a href" not in body(message, "html")
