"""The board is what its code makes, and asks for metrics and records that there are."""

from __future__ import annotations

import json
import re

import yaml

from deploy.grafana.board import COLUMNS, FILE, board
from telemetry.document import document
from tests.deploy.test_rules import RULES


def test_the_file_is_what_the_code_makes() -> None:
    assert json.loads(FILE.read_text()) == board(), "make docs writes it anew"


def test_panels_ask_for_what_there_is() -> None:
    declared = set(re.findall(r"`(eventproc_\w+)`", document()))
    records = {
        rule["record"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\beventproc[:_][\w:]+", target["expr"])
            assert names
            for name in names:
                assert name in records or re.sub(r"_(bucket|sum|count)$", "", name) in declared, name


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= COLUMNS
        taken |= cells
