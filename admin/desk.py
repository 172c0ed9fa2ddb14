"""What a command works with: the ledger and the broker, opened when they are asked for, closed at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from admin.say import fail
from admin.settings import AdminSettings
from ledger import Ledger
from schemas.errors import TryLater
from stream.broker import Broker
from stream.connect import open_broker
from stream.settings import StreamSettings
from telemetry.settings import from_environment

LATER = 75  # sysexits(3), EX_TEMPFAIL


@contextlib.contextmanager
def ledger() -> Iterator[Ledger]:
    """The ledger; ends the command when it is away."""
    opened = Ledger.open(from_environment(AdminSettings).ledger_url)
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
