"""The rights on the ledger's tables that the stations need, as SQL or given at once."""

from __future__ import annotations

import json as json_form
from typing import Annotated

import typer

from admin import desk
from admin.say import fail, out
from admin.settings import AdminSettings
from ledger import Ledger
from ledger.engine import NotAllowed
from ledger.roles import FILE, USUAL, grant, role_names, roles, statements
from telemetry.settings import from_environment

Pattern = Annotated[
    str, typer.Option(envvar="ADMIN_LEDGER_ROLES", help="the name of a station's role, with {station} in it")
]


def ledger_roles(
    role: Pattern = USUAL,
    station: Annotated[str, typer.Option(help="only this one's")] = "",
    schema: Annotated[str, typer.Option(help="where the tables are; --apply finds it by itself")] = "public",
    apply: Annotated[bool, typer.Option("--apply", help="give the rights now, at EVENTPROC_LEDGER_URL")] = False,
    json: Annotated[bool, typer.Option("--json", help="the list itself")] = False,
) -> None:
    """Prints, as SQL for PostgreSQL, the roles of the stations with the rights that each needs, and no others; or gives them."""
    if station and station not in roles():
        raise fail(
            f"there is no station {station!r} at the ledger; there are {', '.join(roles())}", desk.CALLED_WRONGLY
        )
    if station and apply:
        raise fail("--apply gives all stations theirs; leave --station out", desk.CALLED_WRONGLY)
    wanted = [station] if station else list(roles())
    if json:
        listed = json_form.loads(FILE.read_text())
        typer.echo(json_form.dumps({name: listed[name] for name in wanted}, indent=2))
    elif apply:
        with desk.any_ledger(from_environment(AdminSettings).ledger_url) as ledger:
            give(ledger, role)
    else:
        for name in wanted:
            for statement in statements(name, _names(role)[name], schema):
                typer.echo(f"{statement};")


def give(ledger: Ledger, pattern: str) -> None:
    """Gives all stations' roles their rights, and says so; ends the command when that cannot be."""
    _names(pattern)
    try:
        names = grant(ledger, pattern)
    except NotAllowed as error:
        raise fail(f"{error.reason}; the tables' owner may, where the roles are there already") from error
    except ValueError as error:
        raise fail(str(error), desk.CALLED_WRONGLY) from error
    out.print(f"rights given to {', '.join(names.values())}", markup=False)


def _names(pattern: str) -> dict[str, str]:
    try:
        return role_names(pattern)
    except ValueError as error:
        raise fail(f"--role: {error}", desk.CALLED_WRONGLY) from error
