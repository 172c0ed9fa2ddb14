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
        {"eventproc_oldest_queued_seconds": "1000x60"}, {"eventproc_oldest_queued_seconds": "100x60"}, 20,
    ),
    "EventprocStuckRuns": (
        {'eventproc_unaccounted{kind="event_lost"}': "1x60"}, {'eventproc_unaccounted{kind="event_lost"}': "0x10 1x5 0x60"}, 40,
    ),
    "EventprocDeadLetters": (
        {"eventproc_dead_letters_total": "0x5 3x60"}, {"eventproc_dead_letters_total": "3x60"}, 10,
    ),
    "EventprocPartitionsHeld": ({"eventproc_partitions_held": "1x60"}, {"eventproc_partitions_held": "0x60"}, 20),
    "EventprocEmailBacklog": (
        {"eventproc_emails_pending": "3x60", 'eventproc_emails_total{outcome="sent"}': "9x60"},
        {"eventproc_emails_pending": "3x60", 'eventproc_emails_total{outcome="sent"}': "9+1x60"},
        40,
    ),
    "EventprocSandboxDegraded": (
        {'eventproc_sandbox_layer{layer="seccomp"}': "0x60"}, {'eventproc_sandbox_layer{layer="seccomp"}': "1x60"}, 20,
    ),
    "EventprocCrashLooping": (
        {'process_start_time_seconds{job="eventproc-executor",instance="a"}': "1+1x60"},
        {'process_start_time_seconds{job="eventproc-executor",instance="a"}': "1x10 2x60"},
        30,
    ),
    "EventprocLeaseLosses": (
        {"eventproc_leases_lost_total": "0+1x60"}, {"eventproc_leases_lost_total": "0x10 3x60"}, 30,
    ),
    "EventprocLoopStuck": (
        {'eventproc_last_turn_age_seconds{instance="a"}': "300x60"}, {'eventproc_last_turn_age_seconds{instance="a"}': "1x60"}, 10,
    ),
    "EventprocNothingScraped": ({"up": "0x60"}, {"eventproc_last_turn_age_seconds": "1x60"}, 20),
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
