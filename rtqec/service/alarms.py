"""What an operator should look at, in words: decided from one reading and from what happened since another one."""

from __future__ import annotations

from dataclasses import dataclass

from rtqec.service.figures import in_short, in_time
from rtqec.service.readings import (
    DROP_CAUSES,
    Counts,
    Interval,
    LaneReading,
    PatchReading,
    ServiceReading,
)
from rtqec.units import NS_PER_S

SILENT_S = 2.0
"""A patch that has been fed, and for so long is not, is called silent."""
BACKLOG_FRACTION = 0.5
"""Of the bound beyond which windows are held."""
_BEATS_S = 0.5
"""Lanes beat ten times a second; between readings that are closer than this the beats prove nothing."""

_COUNTED = (
    ("corrections_late", "late corrections", "handed over after their deadline"),
    ("lossy", "lossy corrections", "rounds never came"),
    ("degraded", "degraded corrections", "there is a guess in them"),
    ("rounds_held", "rounds held", "too many waited; answered without being decoded"),
    ("rounds_given_up", "held rounds given up", "gone before they could be decoded"),
    ("corrections_unsent", "corrections unsent", "the controller does not read"),
    ("journal_drops", "corrections gone", "unsent, and no longer in the journal"),
    ("unexplained", "unexplained windows", "their events cannot be paired; does the feed belong to this plan?"),
    ("messages_missing", "messages missing", "there are gaps in their numbers"),
    ("shots_truncated", "truncated shots", "they ended before their last round came"),
    ("shots_headless", "headless shots", "their first round never came"),
    ("shots_timed_out", "shots timed out", "their source fell silent"),
    ("restarts", "source restarts", "it came back with another epoch"),
    ("resyncs", "source resyncs", "it counts anew without another epoch"),
    ("sessions_failed", "failed CUDA-Q shots", "what came cannot be decoded; the client must reset the decoder"),
    ("answers_unsent", "answers unsent", "the transport did not take them"),
)
"""Counters that stay 0 while all is well: name, what they count, why that is."""
_DROPPED = {
    "bad_plan_tag": "it was set up for another plan",
    "second_source": "another source feeds the patch",
    "ring_full": "the path does not take rounds as fast as they come",
    "late": "their place had been given up",
    "duplicate": "they came before",
    "drained": "the daemon takes no further shots",
}
_IMPOSSIBLE = "somebody writes what no message may say"


@dataclass(frozen=True)
class Alarm:
    """One thing to look at.

    Attributes:
        urgent: Whether it is so now; else it was, since the start.
        where: The daemon, a lane or a patch.
        text: What, and why.
    """

    urgent: bool
    where: str
    text: str


def find_alarms(reading: ServiceReading, interval: Interval | None) -> list[Alarm]:
    """All alarms, the urgent ones first.

    Args:
        reading: The daemon now.
        interval: What happened until now, or None where there was no reading before.
    """
    found = _daemon_alarms(reading)
    if reading.alive:
        for lane in reading.lanes:
            found += _lane_alarms(lane, interval)
        for patch in reading.patches:
            found += _patch_alarms(patch, reading.taken_ns, interval)
    return sorted(found, key=lambda alarm: not alarm.urgent)


def _daemon_alarms(reading: ServiceReading) -> list[Alarm]:
    if not reading.alive:
        how = "has ended" if reading.state == "stopped" else f"died while it was {reading.state}"
        return [Alarm(True, "daemon", f"process {reading.pid} {how}; what follows is what it left")]
    if reading.state != "ready":
        return [Alarm(True, "daemon", f"is {reading.state}")]
    return []


def _lane_alarms(lane: LaneReading, interval: Interval | None) -> list[Alarm]:
    found = []
    is_up = lane.alive and lane.state == "ready"
    if lane.state != "ready":
        found.append(Alarm(True, lane.name, f"is {lane.state}"))
    elif not lane.alive:
        found.append(Alarm(True, lane.name, "its process is gone; the supervisor has not noticed yet"))
    if lane.problem is not None and lane.state == "ready":
        found.append(Alarm(True, lane.name, f"its telemetry cannot be read: {lane.problem}"))
    change = interval.lanes.get(lane.name) if interval is not None else None
    if change is not None and interval is not None and interval.seconds >= _BEATS_S and is_up and not change.restarts:
        still = [thread for thread, beats in zip(("ingest", "path"), change.beats, strict=True) if not beats]
        if still:
            found.append(Alarm(True, lane.name, f"{' and '.join(still)} gave no sign of life"))
    counts = [("brought back", "its process died or fell silent", lane.restarts, change.restarts if change else 0)]
    for cause, count in lane.dropped.items():
        more = change.dropped[cause] if change else 0
        counts.append((f"messages dropped ({cause})", "they are of no patch of this lane", count, more))
    return found + _count_alarms(lane.name, counts)


def _patch_alarms(patch: PatchReading, now_ns: int, interval: Interval | None) -> list[Alarm]:
    where = f"patch {patch.facts.id}"
    recent = interval.patches.get(patch.facts.id) if interval is not None else None
    found = _silence_alarms(where, patch, now_ns, recent)
    if patch.backlog_bound and patch.backlog > BACKLOG_FRACTION * patch.backlog_bound:
        found.append(Alarm(True, where, f"{patch.backlog} rounds wait; beyond {patch.backlog_bound} windows are held"))
    if patch.last is not None and patch.last.tainted_since is not None:
        text = f"its frame is tainted since round {patch.last.tainted_since} of shot {patch.last.shot_id}"
        found.append(Alarm(True, where, text))
    forbidden = [step for step in patch.facts.ladder if step not in patch.steps]
    if forbidden:
        found.append(Alarm(False, where, f"its ladder was told to leave out {', '.join(forbidden)}"))
    dropped = [(cause, f"messages dropped ({cause})", _DROPPED.get(cause, _IMPOSSIBLE)) for cause in DROP_CAUSES]
    counts = [
        (what, reason, patch.counts.by_name[name], recent.by_name[name] if recent is not None else 0)
        for name, what, reason in (*_COUNTED, *dropped)
    ]
    return found + _count_alarms(where, counts)


def _silence_alarms(where: str, patch: PatchReading, now_ns: int, recent: Counts | None) -> list[Alarm]:
    """One, if nothing comes: urgent, if something did before."""
    if not patch.counts.by_name["rounds"]:
        return [Alarm(False, where, "no round has come yet")]
    if patch.last is None or (recent is not None and recent.by_name["rounds"]):
        return []
    age_s = (now_ns - patch.last.published_ns) / NS_PER_S
    return [Alarm(True, where, f"silent for {in_time(age_s)}")] if age_s >= SILENT_S else []


def _count_alarms(where: str, counts: list[tuple[str, str, int, int]]) -> list[Alarm]:
    """Counts that should be 0: one alarm for each that has just grown, one for all that ever did.

    Args:
        where: The lane or the patch.
        counts: Of each: what is counted, why that is bad, the count, and how much of it is of just now.
    """
    found = [Alarm(True, where, f"{what}: {in_short(count)} ({in_short(more)} just now), {reason}")
             for what, reason, count, more in counts if more]  # fmt: skip
    past = [f"{what} {in_short(count)}" for what, _, count, more in counts if count and not more]
    return [*found, Alarm(False, where, f"since the start: {', '.join(past)}")] if past else found
