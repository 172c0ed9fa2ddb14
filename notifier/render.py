"""What is to be said -> an email: headers, plain text, HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from pathlib import Path

import jinja2

from ledger.outbox import Mail
from notifier.attach import NO_FILES, Files
from notifier.explain import Explained, explain, size
from notifier.sum_up import summed_up

MOST_NAME = 100  # characters of a handler's or an archive's name in the subject


class _Policy(EmailPolicy):
    """As email.policy.SMTP, but a header's text begins on the line of its name: filters look for "Subject: [eventproc]"."""

    def fold_binary(self, name: str, value: str) -> bytes:
        start = f"{name}:".encode()
        return super().fold_binary(name, value).replace(start + b"\r\n ", start + b" ", 1)


POLICY = _Policy(linesep="\r\n", cte_type="7bit")  # 7 bit: any server takes it
_ONE_HEADER = re.compile(rb"[!-9;-~]+:(?:[^\r\n]|\r\n[ \t]+[^ \t\r\n])*\r\n")  # RFC 5322, section 2.2.3: with folds

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)

_templates.filters["size"] = size


class CannotRender(ValueError):
    """An email cannot be made of this mail; it never will be."""


def render(mail: Mail, sender: str, files: Files = NO_FILES) -> EmailMessage:
    """The email, ready to be sent with as_bytes(): 7 bit, lines end with CRLF, the same Message-ID each time
    (the mail's, at the sender's domain).

    sender: the From address; files: how runs' files are linked and shown. Raises CannotRender when the mail accounts for no run,
    or for one that cannot be told.
    """
    try:
        if mail.lines:
            digest = summed_up(mail.lines, mail.kind, files)
            return _checked(_message(mail, sender, digest.subject, "digest", {"digest": digest}, digest.run_ids))
        runs = tuple(explain(run, files) for run in mail.runs)
        if not runs:
            raise CannotRender("accounts for no run")
        message = _message(mail, sender, subject_of(runs), "mail", {"runs": runs}, tuple(run.run_id for run in runs))
        _show_pictures(message, runs)
        return _checked(message)
    except (
        MessageError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        jinja2.TemplateError,
    ) as error:
        raise CannotRender(f"cannot be rendered: {error.__class__.__name__}: {error}") from error


def subject_of(runs: tuple[Explained, ...]) -> str:
    """For instance '[eventproc] fault_report succeeded on feeder7.zip'; one line whatever the names hold."""
    first = runs[0]
    subject = f"[eventproc] {_short(first.handler)} {first.verb} on {_short(first.archive) or 'an event'}"
    return subject if len(runs) == 1 else f"{subject} and {len(runs) - 1} more"


def _message(
    mail: Mail, sender: str, subject: str, template: str, known: Mapping[str, object], run_ids: Sequence[str]
) -> EmailMessage:
    message = EmailMessage(policy=POLICY)
    message["From"] = sender
    message["To"] = mail.recipient
    message["Subject"] = _plain(subject)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{mail.message_id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5: no vacation notice comes back
    message["X-Auto-Response-Suppress"] = "All"  # the same for Exchange
    message["X-Eventproc-Run"] = ", ".join(run_ids)
    said = {**known, "subject": subject}
    message.set_content(_templates.get_template(f"{template}.txt.j2").render(said), charset="utf-8")
    html = _templates.get_template(f"{template}.html.j2").render(said)
    message.add_alternative(html, subtype="html", charset="utf-8")
    return message


def _show_pictures(message: EmailMessage, runs: Sequence[Explained]) -> None:
    """Beside the HTML (multipart/related, RFC 2387), where its cid: links find them."""
    html = message.get_body(("html",))
    assert isinstance(html, EmailMessage)
    for run in runs:
        for file in run.files:
            if file.picture is not None:
                html.add_related(
                    file.picture, "image", file.subtype, cid=f"<{file.code}>", filename=_plain(_short(file.name)),
                    disposition="inline",
                )  # fmt: skip


def _plain(text: str) -> str:
    """Without what would be read as an encoded word (RFC 2047): Python decodes it, and before CVE-2024-6923 was mended it wrote
    the line ends in it as they are."""
    return text.replace("=?", "= ?")


def _checked(message: EmailMessage) -> EmailMessage:
    """The email, of which every header is one header when it is written; raises CannotRender when one is not."""
    for part in message.walk():
        for name, value in part.raw_items():
            if not _ONE_HEADER.fullmatch(POLICY.fold_binary(name, value)):
                raise CannotRender(f"the header {name} would be more than one header: {str(value)[:200]!r}")
    return message


def _short(name: str) -> str:
    """One line without control, format and separator signs (a line end in a header would begin another header)."""
    line = " ".join("".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in name).split())
    return line if len(line) <= MOST_NAME else f"{line[: MOST_NAME - 20]}...{line[-17:]}"
