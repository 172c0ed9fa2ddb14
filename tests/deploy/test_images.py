"""The images as they are built: labels, size, and what the executor's can do with nothing but Docker's defaults."""

from __future__ import annotations

import json

import pytest

from deploy.release import ROOT, present
from tests.deploy import composed
from tests.deploy.composed import BUILD_S, IMAGES, USER, docker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_S + 300)]

MOST_MB = {"stations": 680, "executor": 1070}
HELD = (
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--network",
    "none",
)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if lacking := composed.lacking():
        pytest.skip(lacking)
    composed.build()


@pytest.mark.parametrize("name", list(IMAGES))
def test_an_image_says_what_it_is_and_is_no_larger_than_need_be(name: str) -> None:
    image = json.loads(docker("image", "inspect", IMAGES[name]))[0]

    labels = {key.rpartition(".")[2]: value for key, value in image["Config"]["Labels"].items()}
    assert labels["version"] == present(ROOT)
    assert len(labels["revision"]) == 40
    assert labels["title"] and labels["description"] and labels["licenses"] == "Apache-2.0"
    assert image["Config"]["User"] == f"{USER}:{USER}"
    print(f"{IMAGES[name]}: {image['Size'] // 1_000_000} MB")
    assert image["Size"] < MOST_MB[name] * 1_000_000


def test_without_a_profile_of_ours_the_executors_sandbox_is_at_level_pod() -> None:
    said = docker(
        "run", "--rm", *HELD, IMAGES["executor"],
        "executor.check", "--runtime", "py3.11", "--python", "/opt/py3.11/bin/python",
    )  # fmt: skip

    assert '"sandbox_level": "pod"' in said
