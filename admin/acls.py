"""The rights at Kafka that the stations need, as commands for Kafka's own tool or as data."""

from __future__ import annotations

import json as json_form
from typing import Annotated

import typer

from admin.say import fail
from schemas.acls import FILE, Acl, acls


def kafka_acls(
    principal: Annotated[
        str, typer.Option(help="of a station at Kafka: User:{station}, or User:CN={station} with client certificates")
    ] = "User:{station}",
    station: Annotated[str, typer.Option(help="only this one's")] = "",
    json: Annotated[bool, typer.Option("--json", help="as Strimzi's KafkaUser has them")] = False,
) -> None:
    """Prints which rights at Kafka each station needs: lines for kafka-acls.sh, each to be followed by --bootstrap-server."""
    if station and station not in acls():
        raise fail(f"there is no station {station!r} at Kafka; there are {', '.join(acls())}", 2)
    wanted = [station] if station else list(acls())
    if json:
        data = json_form.loads(FILE.read_text())
        typer.echo(json_form.dumps({name: data[name] for name in wanted}, indent=2))
        return
    for name in wanted:
        for one in acls()[name]:
            typer.echo(_command(principal.replace("{station}", name), one))


def _command(principal: str, one: Acl) -> str:
    pattern = " --resource-pattern-type prefixed" if one.prefix else ""
    return f"kafka-acls.sh --add --allow-principal '{principal}' --operation {one.operation} --{one.kind} {one.name}{pattern}"
