"""This release and a next one side by side, as while an upgrade rolls, and back: nothing is lost, run twice, or a dead letter.

The next release is this one with a field more in every contract and service, and a column and a table more.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from devstack.stack import ROOT
from schemas.contracts import hook_names
from tests.chaos.havoc import Deed
from tests.chaos.stage import SHARED, Stage
from tests.chaos.test_two_of_each import TWO, Pairs, until

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "bench", "dist", "build", "*.egg-info")
ARCHIVES = 12

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    op.add_column("run", sa.Column("next", sa.Text(), nullable=False, server_default=""))
    op.create_table("next", sa.Column("id", sa.Integer(), primary_key=True))
"""


def next_release(folder: Path) -> Path:
    """A tree of it."""
    tree = folder / "next"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    for name in ("task", "result", "dead_letter", *hook_names()):
        path = next(path for path in (tree / "schemas").glob(f"*/{name}.avsc"))
        schema = json.loads(path.read_text())
        schema["fields"].append({"name": "Next", "type": "string", "default": "of the next release"})
        path.write_text(json.dumps(schema))
        history = tree / "schemas" / "history" / name
        (history / f"{len(list(history.iterdir())) + 1}.avsc").write_text(json.dumps(schema))
    protos = tree / "schemas" / "proto"
    for proto in protos.glob("*.proto"):
        proto.write_text(re.sub(r"^(message \w+ \{)", r"\1 string next_release = 999;", proto.read_text(), flags=re.M))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-Ischemas/generated=schemas/proto",
            "--python_out=.",
            "--grpc_python_out=.",
        ]
        + [f"schemas/generated/{proto.name}" for proto in protos.glob("*.proto")],
        cwd=tree,
        check=True,
    )
    versions = tree / "ledger" / "migrations" / "versions"
    head = ScriptDirectory(str(versions.parent)).get_current_head()
    (versions / "9999_next.py").write_text(MIGRATION.format(head=head))
    return tree


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    settings = {**SHARED, "EVENTPROC_MAIL_STORM_AFTER": "0"}
    tree = next_release(tmp_path_factory.mktemp("next"))
    stage = Stage(tmp_path_factory.mktemp("rolling"), settings=settings, counts=TWO, newer=tree)
    stage.start(lambda text: None)
    made = Pairs(stage, tmp_path_factory.mktemp("archives"))
    yield made
    made.close()
    stage.stop()


def upload(both: Pairs, name: str, to: tuple[int, ...]) -> None:
    for number in range(ARCHIVES):
        _, request_id = both.upload(to[number % len(to)], f"{name}-{number}")
        both.events[request_id] = ("every",)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_releases_side_by_side_then_the_new_one_alone_then_back_again(both: Pairs) -> None:
    assert "its tables are of revision 9999" in both.ledger.unlike(), "the newer of the two has made the tables"
    upload(both, "side-by-side", (0, 1))
    both.all_settled([])
    assert all(both.worked().values()), both.worked()

    deeds = []
    for name, goes, stays in (("new-alone", "1", 1), ("old-alone", "2", 0)):
        gone = [f"{station}-{goes}" for station in TWO]
        upload(both, f"before-{name}", (0, 1))
        for one in gone:
            both.stage.supervisor.take_down(one)
            deeds.append(Deed(time.time(), one, "kill"))
        upload(both, name, (stays,))
        both.all_settled(deeds)
        for one in gone:
            both.stage.supervisor.bring_back(one)
        until(both.stage.all_ready, "those that were gone to be ready again")
