"""What a command works with: the ledger and the broker, opened when they are asked for, closed at the end."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy.exc import ArgumentError

from admin.say import fail, say
from admin.settings import AdminSettings
from ledger import Ledger, audit
from ledger.audit import Actor
from schemas.errors import TryLater
from stream.broker import Broker
from stream.connect import open_book, open_broker
from stream.schema_book import SchemaBook
from stream.settings import StreamSettings
from telemetry.settings import from_environment

CALLED_WRONGLY = 2  # exit codes
LATER = 75  # sysexits(3), EX_TEMPFAIL

T = TypeVar("T")


@contextlib.contextmanager
def ledger() -> Iterator[Ledger]:
    """The ledger; ends the command when it is away, or is none of this release."""
    with any_ledger(from_environment(AdminSettings).ledger_url) as opened:
        wrong = opened.unlike()
        if wrong:
            where = opened.engine.url.render_as_string(hide_password=True)
            hint = (
                "eventproc-admin migrate of this release makes or changes the tables, as does each station that starts"
            )
            raise fail(f"the ledger {where}: {wrong}; {hint}", CALLED_WRONGLY)
        yield opened


@contextlib.contextmanager
def any_ledger(url: str) -> Iterator[Ledger]:
    """The ledger, whatever its tables; ends the command when it is away, or the URL is none."""
    try:
        opened = Ledger.open(url)
    except (ArgumentError, ImportError) as error:
        right = "sqlite:////path or postgresql+psycopg://user:password@host/name"
        raise fail(f"EVENTPROC_LEDGER_URL: {error}; should be {right}", CALLED_WRONGLY) from error
    try:
        yield opened
    except TryLater as error:
        raise fail(f"{error.reason}; try again later", LATER) from error
    finally:
        opened.close()


@contextlib.contextmanager
def broker() -> Iterator[Broker]:
    """The broker; ends the command when it is away."""
    opened = open_broker(from_environment(StreamSettings))
    try:
        yield opened
    except TryLater as error:
        raise fail(f"{error.reason}; try again later", LATER) from error
    finally:
        opened.close()


def patiently(work: Callable[[], T], wait_s: float) -> T:
    """Does the work, for wait_s again and again while what it needs is away; says so; then raises the last TryLater."""
    until, wait, said = time.monotonic() + wait_s, 0.5, ""
    while True:
        try:
            return work()
        except TryLater as error:
            left = until - time.monotonic()
            if left <= 0:
                why = f"{error.reason} (waited for {wait_s:g} s)" if wait_s else error.reason
                raise TryLater(why, error.after_s) from error
            if error.reason != said:
                said = error.reason
                say(f"waiting for {left:.0f} s at most: {said}")
            time.sleep(min(left, max(wait, error.after_s)))
            wait = min(wait * 2, 10.0)


def operator() -> Actor:
    """Who calls the command, as the audit log has it: the name at this machine, and the machine's."""
    return Actor(name(), audit.OPERATOR, socket.gethostname())


def name() -> str:
    """The caller's name at this machine; by number where it has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def book(broker: Broker) -> SchemaBook:
    """The schemas of all who write to it."""
    return open_book(from_environment(StreamSettings), broker.admin(), broker.producer())
