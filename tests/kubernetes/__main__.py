"""The chart on a real Kubernetes of its own: installed, used, broken and upgraded under load. What was lost or doubled is counted.

deploy/try-on-kubernetes runs it; README.md beside this file says what it does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from devstack.stack import ROOT
from tests.kubernetes.backing import Backing
from tests.kubernetes.blows import STATIONS, Blows
from tests.kubernetes.cluster import Cluster, Failed
from tests.kubernetes.images import Images
from tests.kubernetes.load import Load
from tests.kubernetes.logs import Logs
from tests.kubernetes.release import FULL, PATIENCE_S, SWITCHES, Release
from tests.kubernetes.story import Clock, Users

TOOLS = ROOT.parent / "shared" / "tools"
EVERY_S = 6.0


def main() -> int:
    """0 when nothing was lost or doubled, 1 when something was, 2 when a step did not come about."""
    given = _parse()
    state = Path(tempfile.mkdtemp(prefix="eventproc-kubernetes-"))
    state.chmod(0o755)  # pods have volumes in it
    (state / "seccomp").mkdir()
    clock = Clock()
    try:
        cluster = Cluster(given.rig, given.home, state / "seccomp")
        images = Images.of_this_release()
        if not given.built:
            images.build(given.standins)
            clock.say(f"built {', '.join(images.all())}")
        cluster.up()
        try:
            wrong = _in(cluster, images, state, clock, given)
        finally:
            if not given.keep:
                cluster.down()
                clock.say("the cluster is gone")
    except Failed as error:
        clock.say(f"FAILED: {error}")
        return 2
    finally:
        if not given.keep:
            shutil.rmtree(state)
    return wrong


def _parse() -> argparse.Namespace:
    home = Path(os.environ.get("RIG_HOME", "/var/lib/k8srig"))
    parser = argparse.ArgumentParser(prog="deploy/try-on-kubernetes", description=__doc__)
    parser.add_argument("--rig", type=Path, default=TOOLS / "k8s", help="folder with up, load and down")
    parser.add_argument("--home", type=Path, default=home, help="RIG_HOME, with the rig's programs (/var/lib/k8srig)")
    parser.add_argument(
        "--standins", type=Path, default=TOOLS / "standin-images", help="makes base images that cannot be pulled"
    )
    parser.add_argument(
        "--built",
        action="store_true",
        help="the images are in Docker already, and as they are in the cluster if an earlier one has loaded them",
    )
    parser.add_argument("--calm", action="store_true", help="install and use it; break nothing")
    parser.add_argument("--one-level", action="store_true", help="leave out the other levels of the sandbox")
    parser.add_argument("--keep", action="store_true", help="leave the cluster and the state folder as they are")
    return parser.parse_args()


def _in(cluster: Cluster, images: Images, state: Path, clock: Clock, given: argparse.Namespace) -> int:
    clock.say("the cluster is Ready")
    cluster.load(images.all(), missing=given.built)
    clock.say("the images are loaded")
    backing = Backing(cluster, state, images.companions)
    backing.start()
    clock.say("Kafka, PostgreSQL and the mail server are ready")
    release = Release(cluster, state)
    release.install()
    clock.say("helm install: tables and topics are made, stations start")
    logs = Logs(cluster, state / "logs")
    backing.trust_the_registry()
    cluster.settled("events", PATIENCE_S)
    clock.say("every station is ready")
    clock.say(f"helm test: {release.test()}")
    users = Users(cluster, backing, state)
    blows = Blows(cluster)
    try:
        clock.say(f"alice and bob have registered {', '.join(users.handlers)}")
        clock.say(f"{users.send_real()} is taken by the ingress")
        users.settle()
        clock.say(f"its {len(list(backing.mail.glob('*.eml')))} emails have arrived")
        if not given.calm:
            _under_load(users, blows, release, images, clock)
        logs.close()
        books = users.count(blows.deeds)
        clock.say(f"the books: {books.last_line()}")
        clock.say(f"eventproc-admin reconcile: {release.reconcile()}")
    finally:
        users.close()
        logs.close()
    if not given.calm:
        _switches(cluster, release, clock)
        if not given.one_level:
            _levels(cluster, release, clock)
        clock.say(f"helm uninstall leaves what it should: {release.uninstall()}")
    print(
        f"outcomes: {dict(sorted(books.outcomes.items()))}; handlers began {books.starts} times, {books.started_again} of them again; "
        f"{books.copies} second copies of an email"
    )
    print(books.last_line())
    return 1 if books.lost or books.doubled else 0


def _under_load(users: Users, blows: Blows, release: Release, images: Images, clock: Clock) -> None:
    next_tag = f"{images.version}-next"
    blows.cluster.load(images.tag(next_tag))
    load = Load(users.ingress, users.state, EVERY_S, PATIENCE_S)
    load.start()
    clock.say(f"an archive every {EVERY_S:g} s from here on")
    for station in STATIONS:
        name = blows.kill(station)
        clock.say(f"killed {name}; all ready again after {blows.back():.0f} s")
    for station in ("executor", "dispatcher", "registry"):
        name = blows.crash(station)
        clock.say(f"kill -9 in {name}; all ready again after {blows.back():.0f} s")
    for name in ("kafka", "postgresql"):
        away = blows.kill_backing(name)
        clock.say(f"killed {name}, away for {away:.0f} s; all ready again after {blows.back():.0f} s more")
    clock.say(f"drained the executors: {blows.drain()}; all ready again after {blows.back():.0f} s")
    blows.rolls()
    release.upgrade({"image": {"tag": next_tag}})
    clock.say(f"helm upgrade to the images {next_tag}: every pod is a new one")
    load.stop()
    users.events |= load.events
    clock.say(f"the last of {len(load.events)} archives is taken")
    clock.say(f"all events have come to their ends and emails {users.settle():.0f} s later")


def _switches(cluster: Cluster, release: Release, clock: Clock) -> None:
    clock.say(f"the executors' port is closed to others: {release.closed()}")
    cluster.kubectl("apply", "--server-side", "-f", str(cluster.crds))
    for what, values in SWITCHES.items():
        clock.say(f"the API takes {what}: {release.is_accepted(values)} objects")


def _levels(cluster: Cluster, release: Release, clock: Clock) -> None:
    clock.say(f"sandbox, level pod: {release.stands()}")
    for level, values in release.levels().items():
        if level == FULL:
            cluster.kubectl(
                "label", "namespace", "events", "--overwrite", "pod-security.kubernetes.io/enforce=privileged"
            )
        release.upgrade(values)
        clock.say(f"sandbox, {level}: {release.stands()}; helm test: {release.test()}")


if __name__ == "__main__":
    sys.exit(main())
