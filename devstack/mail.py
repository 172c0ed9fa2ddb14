"""The stack's mail server: takes every mail, keeps it as an .eml file and prints it when asked. Sends nothing on.

python -m devstack.mail --port 0 --folder .devstack/mail [--host 127.0.0.1] [--print] [--address-file FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import os
import re
import signal
import sys
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP

MOST_BYTES = 32 * 1024 * 1024
_SHOWN_HEADERS = ("From", "To", "Subject", "Date", "Message-ID", "X-Eventproc-Run")


class Sink:
    """An aiosmtpd handler. Files are called <UTC time to the microsecond>-<number>-<recipient>.eml, so they sort by arrival."""

    def __init__(self, folder: Path, show: bool = False) -> None:
        """folder: made when it is missing; show: print each mail to stdout."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._show = show
        self._number = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keeps the mail, then says so to its sender."""
        content: bytes = envelope.content
        for recipient in envelope.rcpt_tos:
            self.keep(recipient, content)
        if self._show:
            print(readable(content), flush=True)
        return "250 2.0.0 kept"

    def keep(self, recipient: str, content: bytes) -> Path:
        """Writes the .eml, whole or not at all, and returns its path. A reader of *.eml never meets half a mail."""
        now = time.time_ns()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9)) + f".{now // 1000 % 10**6:06d}Z"
        self._number += 1
        name = f"{stamp}-{self._number:06d}-{re.sub(r'[^A-Za-z0-9@._+-]', '_', recipient)[:100]}.eml"
        fresh = self._folder / f".{name}.{os.getpid()}"
        fresh.write_bytes(content)
        return fresh.rename(self._folder / name)


def readable(content: bytes) -> str:
    """A mail as a person reads it on a terminal: its main headers and its plain text. Control signs are taken out."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    headers = [f"{name}: {message[name]}" for name in _SHOWN_HEADERS if message[name] is not None]
    body = message.get_body(preferencelist=("plain", "html"))
    text = body.get_content() if body is not None else ""
    rule = "-" * 78
    shown = "\n".join([rule, *headers, "", str(text).rstrip(), rule])
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", shown.replace("\r\n", "\n"))


async def serve(sink: Sink, host: str, port: int, address_file: Path | None = None) -> None:
    """Takes mail until SIGTERM or SIGINT; raises OSError when the port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(
        lambda: SMTP(sink, hostname="mail.example.com", data_size_limit=MOST_BYTES, enable_SMTPUTF8=True), host, port
    )
    address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    if address_file is not None:
        fresh = address_file.with_name(f"{address_file.name}.{os.getpid()}")
        fresh.write_text(address + "\n")
        fresh.replace(address_file)
    print(f"taking mail at {address}", file=sys.stderr, flush=True)
    await stop.wait()
    server.close()
    await server.wait_closed()


def main() -> int:
    """Runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="devstack.mail", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--folder", type=Path, required=True, help="where the .eml files go")
    parser.add_argument("--print", action="store_true", dest="show", help="print each mail to stdout")
    parser.add_argument("--address-file", type=Path, help="gets host:port once mail is taken")
    given = parser.parse_args()
    asyncio.run(serve(Sink(given.folder, given.show), given.host, given.port, given.address_file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
