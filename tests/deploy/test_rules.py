"""Every alert fires when it should and stays quiet when it should, by promtool's own evaluation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
TOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    TOOL is None, reason="promtool is not here: make tools installs Debian's prometheus"
)

Series = dict[str, str]
DAY_S = 86_400

READY = 'eventproc_ready{station="%s",check="%s",instance="%s"}'


def there(*stations: str) -> Series:
    """One process of each."""
    return {READY % (station, "ledger", "a"): "1x400" for station in stations}


ALL = there("registry", "dispatcher", "executor", "notifier")

# alert -> (series under which it fires, series under which it is quiet, minutes after which it is asked)
CASES: dict[str, tuple[Series, Series, int]] = {
    "EventprocEventsLateFast": (
        {'eventproc_events_started_total{in_time="no"}': "0+1x120", 'eventproc_events_started_total{in_time="yes"}': "0+30x120"},
        {'eventproc_events_started_total{in_time="no"}': "0x120", 'eventproc_events_started_total{in_time="yes"}': "0+30x120"},
        90,
    ),
    "EventprocEventsLateSlow": (
        {'eventproc_events_started_total{in_time="no"}': "0+1x500", 'eventproc_events_started_total{in_time="yes"}': "0+100x500"},
        {'eventproc_events_started_total{in_time="no"}': "0+1x500", 'eventproc_events_started_total{in_time="yes"}': "0+1000x500"},
        480,
    ),
    "EventprocRunsUnmailedFast": (
        {'eventproc_runs_mailed_total{outcome="given_up"}': "0+1x120", 'eventproc_runs_mailed_total{outcome="sent"}': "0+100x120"},
        {'eventproc_runs_mailed_total{outcome="given_up"}': "0x120", 'eventproc_runs_mailed_total{outcome="sent"}': "0+100x120"},
        90,
    ),
    "EventprocRunsUnmailedSlow": (
        {'eventproc_runs_mailed_total{outcome="given_up"}': "0+1x500", 'eventproc_runs_mailed_total{outcome="sent"}': "0+1000x500"},
        {'eventproc_runs_mailed_total{outcome="given_up"}': "0+1x500", 'eventproc_runs_mailed_total{outcome="sent"}': "0+9999x500"},
        480,
    ),
    "EventprocNoDispatchProgress": (
        {
            'eventproc_consumer_lag{group="eventproc-dispatcher",topic="ctingress.on_complete"}': "5x60",
            'eventproc_messages_total{topic="ctingress.on_complete",outcome="consumed"}': "7x60",
        },
        {
            'eventproc_consumer_lag{group="eventproc-dispatcher",topic="ctingress.on_complete"}': "5x60",
            'eventproc_messages_total{topic="ctingress.on_complete",outcome="consumed"}': "7+1x60",
        },
        40,
    ),
    "EventprocQueueWait": (
        {'eventproc_oldest_queued_seconds{runtime="py3.11"}': "1000x60"},
        {'eventproc_oldest_queued_seconds{runtime="py3.11"}': "100x60"},
        20,
    ),
    "EventprocStuckRuns": (
        {'eventproc_unaccounted{kind="event_lost"}': "1x60"}, {'eventproc_unaccounted{kind="event_lost"}': "0x10 1x5 0x60"}, 40,
    ),
    "EventprocDeadLetters": (
        {"eventproc_dead_letters_total": "0x5 3x60"}, {"eventproc_dead_letters_total": "3x60"}, 10,
    ),
    "EventprocPartitionsHeld": ({"eventproc_partitions_held": "1x60"}, {"eventproc_partitions_held": "0x60"}, 20),
    "EventprocEmailBacklog": (
        {"eventproc_oldest_email_seconds": "0+60x60"},
        # one mailbox that is full, in a quiet night: it waits, is due, is tried at once, waits
        {"eventproc_oldest_email_seconds": "0x29 2 0x30", "eventproc_emails_pending": "1x60"},
        40,
    ),
    "EventprocSandboxDegraded": (
        {'eventproc_sandbox_layer{layer="seccomp"}': "0x60"}, {'eventproc_sandbox_layer{layer="seccomp"}': "1x60"}, 20,
    ),
    "EventprocCrashLooping": (
        {
            'process_start_time_seconds{job="events/eventproc",instance="a"}': "1+1x60",
            'eventproc_last_turn_age_seconds{job="events/eventproc",instance="a"}': "1x20 _x40",
        },
        {
            'process_start_time_seconds{job="events/eventproc",instance="a"}': "1x10 2x60",
            'eventproc_last_turn_age_seconds{job="events/eventproc",instance="a"}': "1x60",
            'process_start_time_seconds{job="others",instance="b"}': "1+1x60",
        },
        30,
    ),
    "EventprocPodRestarts": (
        {
            'kube_pod_container_status_restarts_total{namespace="events",pod="a",container="registry"}': "0+1x60",
            'eventproc_ready{namespace="events",station="dispatcher",check="kafka"}': "1x5 _x60",
        },
        {
            'kube_pod_container_status_restarts_total{namespace="events",pod="a",container="registry"}': "0x10 2x60",
            'kube_pod_container_status_restarts_total{namespace="others",pod="b",container="registry"}': "0+1x60",
            'eventproc_ready{namespace="events",station="dispatcher",check="kafka"}': "1x60",
        },
        40,
    ),
    "EventprocLeaseLosses": (
        {"eventproc_leases_lost_total": "0+1x60"}, {"eventproc_leases_lost_total": "0x10 3x60"}, 30,
    ),
    "EventprocLoopStuck": (
        {'eventproc_last_turn_age_seconds{instance="a"}': "300x60"}, {'eventproc_last_turn_age_seconds{instance="a"}': "1x60"}, 10,
    ),
    "EventprocNothingScraped": ({"up": "0x60"}, {"eventproc_last_turn_age_seconds": "1x60"}, 20),
    "EventprocStationAbsent": (there("registry", "executor", "notifier"), ALL, 20),
    "EventprocNotReady": (
        {READY % ("dispatcher", "kafka", "a"): "0x60", READY % ("dispatcher", "kafka", "b"): "0x60"},
        {READY % ("dispatcher", "kafka", "a"): "0x60", READY % ("dispatcher", "kafka", "b"): "1x60"},
        20,
    ),
    "EventprocProcessNotReady": (
        {READY % ("dispatcher", "kafka", "a"): "0x60", READY % ("dispatcher", "kafka", "b"): "1x60"},
        {READY % ("dispatcher", "kafka", "a"): "0x20 1 0x20 1 0x20"},
        50,
    ),
    "EventprocCertificateExpiry": (
        {'eventproc_certificate_not_after_seconds{certificate="tls.crt"}': f"{5 * DAY_S}x60"},
        {'eventproc_certificate_not_after_seconds{certificate="tls.crt"}': f"{90 * DAY_S}x60"},
        10,
    ),
    "EventprocCertificateUnusable": (
        {'eventproc_certificate_unusable{certificate="tls.crt"}': "1x60"},
        {'eventproc_certificate_unusable{certificate="tls.crt"}': "0x10 1x3 0x60"},
        15,
    ),
    "EventprocApiKeysUnreadable": (
        {'eventproc_api_keys_unreadable{job="eventproc-registry"}': "1x60"},
        {'eventproc_api_keys_unreadable{job="eventproc-registry"}': "0x10 1 0x49"}, 20,
    ),
    "EventprocApiKeyExpiry": (
        {"eventproc_api_key_not_after_seconds": f"{2 * DAY_S}x60"}, {"eventproc_api_key_not_after_seconds": "9000000000x60"}, 10,
    ),
}  # fmt: skip


def evaluated(tmp_path: Path, series: Series, alert: str, minutes: int) -> str:
    """What promtool says of a test in which the alert is expected not to fire: it tells what fired instead."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": []}],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    assert TOOL is not None
    done = subprocess.run([TOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == set(ALERTS)


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    assert TOOL is not None
    done = subprocess.run([TOOL, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_the_alert_fires_when_it_should(tmp_path: Path, alert: str) -> None:
    firing, _, minutes = CASES[alert]
    assert f'alertname="{alert}"' in evaluated(tmp_path, firing, alert, minutes)


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_the_alert_stays_quiet_when_it_should(tmp_path: Path, alert: str) -> None:
    _, quiet, minutes = CASES[alert]
    assert evaluated(tmp_path, quiet, alert, minutes) == ""


@needs_promtool
@pytest.mark.parametrize("station", ["registry", "dispatcher", "executor", "notifier"])
def test_a_station_that_must_be_there_and_never_was_is_missed(tmp_path: Path, station: str) -> None:
    series = {name: values for name, values in ALL.items() if f'"{station}"' not in name}
    assert f'station="{station}"' in evaluated(tmp_path, series, "EventprocStationAbsent", 20)


@needs_promtool
def test_a_station_that_is_a_switch_is_missed_once_it_was_there(tmp_path: Path) -> None:
    series = ALL | {READY % ("ctingress", "http", "a"): "1x5 _x400"}
    assert 'station="ctingress"' in evaluated(tmp_path, series, "EventprocStationAbsent", 30)
    assert evaluated(tmp_path, ALL, "EventprocStationAbsent", 30) == ""


@needs_promtool
@pytest.mark.parametrize(
    ("age_s", "sent", "fires"), [(2000, "0+5x60", False), (2000, "9x60", True), (4000, "0+5x60", True)]
)
def test_a_storm_of_emails_is_no_backlog_while_they_are_sent_unless_they_are_an_hour_late(
    tmp_path: Path, age_s: int, sent: str, fires: bool
) -> None:
    series = {"eventproc_oldest_email_seconds": f"{age_s}x60", 'eventproc_emails_total{outcome="sent"}': sent}
    assert bool(evaluated(tmp_path, series, "EventprocEmailBacklog", 40)) is fires


def test_no_rule_knows_a_job_by_its_name() -> None:
    for group in GROUPS:
        for rule in group["rules"]:
            assert not re.search(r"\bjob\s*[=!]", str(rule["expr"])), rule


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-"))


@pytest.mark.parametrize("alert", ALERTS)
def test_the_alert_leads_to_what_to_do(alert: str) -> None:
    page, _, at = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    titles = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert at in [anchor(title) for title in titles]
    assert ALERTS[alert]["labels"]["severity"] in ("page", "ticket")


def test_rules_speak_of_declared_metrics_only() -> None:
    from telemetry.document import document

    declared = set(re.findall(r"`(eventproc_\w+)`", document()))
    used: set[str] = set()
    for group in GROUPS:
        for rule in group["rules"]:
            used.update(re.findall(r"\beventproc_\w+", str(rule["expr"])))
    bare: Any = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert bare <= declared, bare - declared
