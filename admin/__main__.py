"""eventproc-admin: the operators' command line."""

from __future__ import annotations

import typer

from admin import (
    acls,
    audit,
    books,
    check_runtime,
    dead_letters,
    downgrade,
    emails,
    handlers,
    ledger_roles,
    prepare,
    probe,
    replay,
    retain,
    seals,
)
from telemetry import logs

app = typer.Typer(
    name="eventproc-admin",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(dead_letters.app, name="dead-letters")
app.command()(replay.replay)
app.command()(check_runtime.check_runtime)
app.command()(books.matches)
app.command()(books.reconcile)
app.command()(retain.retain)
app.command()(acls.kafka_acls)
app.command()(ledger_roles.ledger_roles)
app.command()(seals.reseal)
app.command()(audit.audit)
app.command()(prepare.migrate)
app.command()(prepare.topics)
app.command()(probe.probe)
app.command()(downgrade.downgrade)
app.add_typer(emails.app, name="emails")
app.add_typer(handlers.app, name="handlers")


@app.callback()
def begin() -> None:
    """Event processing, for operators."""
    logs.setup("admin")


if __name__ == "__main__":
    app(prog_name="eventproc-admin")
