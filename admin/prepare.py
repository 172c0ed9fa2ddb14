"""Before the stations start: the ledger's tables, the topics. Stations would make both themselves; their rights need not allow it, then."""

from __future__ import annotations

from typing import Annotated

import typer

from admin import desk, ledger_roles
from admin.say import out
from admin.settings import AdminSettings
from ledger.settings import KeepSettings
from schemas.topics import DEAD_LETTERS
from schemas.topics import topics as all_topics
from stream.settings import StreamSettings
from telemetry.settings import from_environment

Wait = Annotated[float, typer.Option(min=0, help="seconds to wait for what is away, before it ends with 75")]


def migrate(
    roles: Annotated[
        str,
        typer.Option(
            envvar="ADMIN_LEDGER_ROLES",
            help="then give the stations' roles their rights; as ledger-roles --role has it",
        ),
    ] = "",
    wait: Wait = 0.0,
) -> None:
    """Brings the ledger's tables to this release; those of a later one are left as they are."""
    with desk.any_ledger(from_environment(AdminSettings).ledger_url) as ledger:
        desk.patiently(ledger.migrate, wait)
        out.print(ledger.unlike() or "the ledger's tables are this release's")
        if roles:
            ledger_roles.give(ledger, roles)


def topics(
    runtimes: Annotated[
        str, typer.Option(envvar="REGISTRY_RUNTIMES", help="that executors serve, comma-separated: py3.11,py3.7")
    ],
    wait: Wait = 0.0,
) -> None:
    """Makes the topics that are missing; lets those that are there take messages as large as EVENTPROC_MAX_MESSAGE_BYTES."""
    names = tuple(name.strip() for name in runtimes.split(",") if name.strip())
    if not names:
        raise typer.BadParameter("names no runtime; py3.11,py3.7 would")
    try:
        wanted = all_topics(names)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    belt, keeping = from_environment(StreamSettings), from_environment(KeepSettings)
    with desk.broker() as broker:
        admin = broker.admin()

        def make() -> None:
            admin.ensure_topics(wanted, belt.replication, belt.max_message_bytes)
            admin.keep(DEAD_LETTERS, keeping.dead_letters_ms())

        desk.patiently(make, wait)
    for topic in wanted:
        out.print(topic.name)
