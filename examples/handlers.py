"""Handlers as a data scientist would write them in a notebook; `make demo` registers these.

A handler is an ordinary function. It gets what its signature names; imports stand inside it.
"""

from __future__ import annotations

from typing import Any


def fault_report(btrdb: Any, DataSets: Any, File: str, Recordings: Any, **kwargs: Any) -> str:  # noqa: N803
    """Finds the faulted phase of every recording: primary fault current (one-cycle RMS) and how long it flowed."""
    import numpy as np

    lines = [f"Fault report for {File}"]
    for recording in Recordings:
        lines.append("")
        lines.append(f"{recording['Station']} / {recording['Device']}")
        cycles_per_second = recording["LineFrequencyHz"] or 60.0
        spans = {s["Uuid"]: s for d in DataSets if d["Name"] == recording["Name"] for s in d["Streams"]}
        worst = None
        for channel in recording["Streams"]:
            if channel["Kind"] != "analog" or channel["Unit"].upper() not in ("A", "KA"):
                continue
            span = spans[channel["Uuid"]]
            points = btrdb.stream_from_uuid(channel["Uuid"]).values(span["StartNs"], span["EndNs"] + 1)
            times = np.array([point.time for point, _ in points])
            primary = np.array([point.value for point, _ in points]) * channel["ToPrimary"]
            if len(times) < 3:
                continue
            rate = 1e9 * (len(times) - 1) / (times[-1] - times[0])
            cycle = max(round(rate / cycles_per_second), 1)
            rms = np.sqrt(np.convolve(primary**2, np.ones(cycle) / cycle, mode="valid"))
            load = float(np.median(rms[:cycle]))
            faulted = rms > max(2 * load, 1e-9)
            # a one-cycle window sees the fault for one cycle longer than it flows
            seconds = max(int(faulted.sum()) - cycle, 0) / rate
            found = (float(rms.max()), load, seconds, channel)
            lines.append(
                f"  {channel['Name']:<8} load {load:9.1f} {channel['Unit']}   peak {rms.max():9.1f} {channel['Unit']} RMS"
            )
            if worst is None or found[0] > worst[0]:
                worst = found
        if worst is None:
            lines.append("  no current channel")
        elif worst[0] > 2 * worst[1]:
            peak, load, seconds, channel = worst
            lines.append(
                f"  => fault on {channel['Name']} (phase {channel['Phase']}): {peak:.0f} {channel['Unit']} RMS primary, "
                f"{peak / max(load, 1e-9):.1f} x load, for {seconds * 1000:.0f} ms ({seconds * cycles_per_second:.1f} cycles)"
            )
        else:
            lines.append("  => no fault seen")
    return "\n".join(lines)


def trip_times(btrdb: Any, DataSets: Any, Recordings: Any, **kwargs: Any) -> str:  # noqa: N803
    """Lists when each status channel changed, relative to the recording's trigger, or its start where no trigger is told."""
    from itertools import pairwise

    lines = []
    for recording in Recordings:
        what, zero = ("trigger", recording["TriggerNs"]) if recording["TriggerNs"] else ("start", recording["StartNs"])
        spans = {s["Uuid"]: s for d in DataSets if d["Name"] == recording["Name"] for s in d["Streams"]}
        for channel in recording["Streams"]:
            if channel["Kind"] != "status":
                continue
            span = spans[channel["Uuid"]]
            points = [p for p, _ in btrdb.stream_from_uuid(channel["Uuid"]).values(span["StartNs"], span["EndNs"] + 1)]
            for before, after in pairwise(points):
                if before.value != after.value:
                    ms = (after.time - zero) / 1e6
                    lines.append(
                        f"{recording['Station']} {channel['Name']} -> {int(after.value)} at {ms:+.1f} ms from the {what}"
                    )
    return "\n".join(lines) or "no status channel changed"


def archive_log(DataSets: Any, File: str, RequestID: str, SubmittedAt: str, **kwargs: Any) -> str:  # noqa: N803
    """One line per data set, also for those that could not be read."""
    print(f"request {RequestID}, submitted {SubmittedAt}")
    lines = [f"{File}: {sum(d['Success'] for d in DataSets)} of {len(DataSets)} data sets ingested"]
    for data_set in DataSets:
        what = f"{len(data_set['Streams'])} streams" if data_set["Success"] else f"NOT READ: {data_set['Error']}"
        lines.append(f"  {data_set['Name']}: {what}")
    return "\n".join(lines)


def harmonics(btrdb: Any, Recordings: Any, **kwargs: Any) -> str:  # noqa: N803
    """Has a mistake on purpose: the failure email shows where."""
    ratios = {}
    for recording in Recordings:
        fundamental = 0.0  # the mistake: never computed
        third = 12.5
        print("looking at", recording["Station"])
        ratios[recording["Station"]] = third / fundamental
    return str(ratios)


def transformer_check(**kwargs: Any) -> str:
    """Registered for tags that the demo's archive does not have: it does not run."""
    return "never seen in the demo"
