"""Commands about files: archives to ingest, files that handlers have uploaded."""

import contextlib
import os
import time
import uuid
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import click

from btrdbextras import eventproc
from btrdbextras.commands import http
from btrdbextras.commands.show import FAILED, Ended, Shared, command, run_of

AGAIN_S = 0.5


@command()
@click.argument("archives", metavar="ARCHIVE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--tags", multiple=True, metavar="A,B", help="Handlers with one of these tags run.")
@click.option("--ingress", envvar="EVENTPROC_INGRESS", metavar="URL", help="Default: $EVENTPROC_INGRESS.")
@click.option("--prefix", default="", help="Put before the collections, for recorders with placeholder names.")
@click.option("--timezone", default="", help="Of recorders that do not tell theirs: America/New_York, +02:00.")
@click.option(
    "--key", metavar="TEXT", help="Idempotency-Key: the same again is the first upload again. Default: a new one."
)
@click.option("--wait", is_flag=True, help="Until it has been ingested and its event is out.")
def upload(
    shared: Shared, archives: Tuple[str, ...], tags: Tuple[str, ...], ingress: Optional[str], wait: bool, **given: str
) -> None:
    """Ingest COMTRADE files: a .zip, .zic, .tar.gz or .cff, or a CFG and its DAT together; handlers run on what is in them."""
    if not ingress:
        raise click.UsageError(
            "where to? Give --ingress https://HOST:PORT or set the environment variable EVENTPROC_INGRESS"
        )
    with http.Server(ingress, shared.conn().apikey) as server:
        asked = {
            "tags": ",".join(tags),
            "name": os.path.basename(archives[0]),
            "prefix": given["prefix"],
            "timezone": given["timezone"],
        }
        body = http.Body(list(archives))
        with progress(shared, "uploading", body.size) as advance:
            state = server.post("/v1/archives", asked, body, given["key"] or str(uuid.uuid4()), advance)
        if wait:
            state = _wait(shared, server, state)
    shared.record(state, _told(state))
    if state["State"] == "failed":
        raise Ended(FAILED)


def _wait(shared: Shared, server: "http.Server", state: Dict[str, Any]) -> Dict[str, Any]:
    with progress(shared, "ingesting", len(state["DataSets"])) as advance:
        done = 0
        while state["State"] not in ("published", "failed"):
            time.sleep(AGAIN_S)
            state = server.get("/v1/archives/" + state["RequestID"])
            read = sum(one["Success"] is not None for one in state["DataSets"])
            advance(read - done)
            done = read
    return state


def _told(state: Dict[str, Any]) -> str:
    found = ["%s %s: %s" % (state["RequestID"], state["File"], state["State"])]
    found += [state["Error"]] if state["Error"] else []
    for one in state["DataSets"]:
        found.append("  %s %s" % (one["Name"], {True: "read", False: one["Error"], None: ""}[one["Success"]]))
    return "\n".join(line.rstrip() for line in found)


@command()
@click.argument("what", metavar="RUN|LINK...", nargs=-1, required=True)
@click.option(
    "-o", "--output", default=".", type=click.Path(file_okay=False), help="The folder to save in.", show_default=True
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
def download(shared: Shared, what: Tuple[str, ...], output: str, force: bool) -> None:
    """Save files that handlers have uploaded: all those of a RUN, or a LINK from an email."""
    conn = shared.conn()
    links: List[str] = []
    for one in what:
        if "://" in one:
            links.append(one)
            continue
        found = eventproc.run(conn, run_of(conn, one))
        if not found.files:
            shared.note("%s has no files%s" % (one, "" if found.run.ended_at else " so far: it has not ended"))
        elif not all(file.link for file in found.files):
            shared.note("%s has files, but this platform serves no downloads" % one)
        links += [file.link for file in found.files if file.link]
    saved: List[str] = []
    taken: Set[str] = set()
    for link in links:
        with http.Server(link, conn.apikey) as server:
            saved.append(server.save(output, force, taken, lambda name, size: progress(shared, name, size)))
    if saved or shared.as_json:
        shared.record(saved, "\n".join(saved))


@contextlib.contextmanager
def progress(shared: Shared, what: str, total: int) -> Iterator[Any]:
    """A bar on a terminal's stderr; gives a function that is told how much more is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    console = Console(stderr=True)
    shown = console.is_terminal and not shared.as_json
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(Text(what).plain, total=max(total, 1))
        yield lambda more: bar.advance(task, more)


COMMANDS = [upload, download]
