"""`rtqec status`: what a running daemon is doing, on one screen or as JSON."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtqec.config import Config
from rtqec.errors import ExitCode
from rtqec.kernels.records import Span
from rtqec.service.alarms import BACKLOG_FRACTION, Alarm, find_alarms
from rtqec.service.figures import NOTHING, in_mib, in_percent, in_short, in_time, in_us
from rtqec.service.reader import ServiceReader
from rtqec.service.readings import Counts, Interval, LaneReading, PatchReading, ServiceReading, difference
from rtqec.units import NS_PER_S
from rtqec.wire import Reason, Rung

_WATCH_S = 0.6
"""Between the two readings of which rates are made: long enough for lanes to beat."""
_LINES_AROUND = 9
"""Head, titles and what is left out; lanes and alarms take more, the rest of a terminal is for patches."""
_ALARMS_MAX = 8
_FRACTIONS = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
COLUMNS = ("patch", "rounds/s", "backlog", "p50", "p99", "events", "rungs", "late", "lossy", "held", "frame")
LEFT = ("patch", "rungs", "frame")
"""Columns that are not numbers."""
_PROBLEMS = {"late": "corrections_late", "lossy": "lossy", "held": "rounds_held"}
WIDE = 100
"""From so many columns on there is room for a second rung."""
LEGEND = "p50, p99: reaction time. events: detection fraction. late, lossy, held: in all."


def print_status(console: Console, config: Config, json_output: bool = False, watch_s: float = _WATCH_S) -> int:
    """Print what the daemon of a configuration is doing.

    Args:
        console: Where to; of a terminal, no more than fits is shown.
        config: The deployment.
        json_output: Print everything, for machines.
        watch_s: How long to watch it, for rates.

    Returns:
        `ExitCode.OK` where it is ready with all its lanes; else `ExitCode.FAILED`.

    Raises:
        FaultError: It is of another version, or may not be read.
    """
    reader = ServiceReader(config)
    reading, interval = watch(reader, watch_s)
    if json_output:
        console.print(json.dumps(describe_status(reading, interval), indent=2), soft_wrap=True, highlight=False,
                      markup=False)  # fmt: skip
    elif reading is None:
        console.print(describe_absence(reader), soft_wrap=True, highlight=False, markup=False)
    else:
        _print_screen(console, reading, interval)
    return ExitCode.OK if reading is not None and is_well(reading) else ExitCode.FAILED


def watch(reader: ServiceReader, watch_s: float) -> tuple[ServiceReading | None, Interval | None]:
    """A reading, and what happened in the time before it, if there was a daemon."""
    before = reader.read()
    if before is None or not before.alive:
        return before, None
    time.sleep(watch_s)
    now = reader.read()
    return now, difference(before, now) if now is not None else None


def is_well(reading: ServiceReading) -> bool:
    """Whether the daemon is ready with all its lanes."""
    return reading.alive and reading.state == "ready" and all(lane.alive and lane.state == "ready"
                                                              for lane in reading.lanes)  # fmt: skip


def describe_absence(reader: ServiceReader) -> str:
    """What to say where no daemon ever was."""
    return (
        f"No daemon: there is no {reader.path}.\n"
        "Either it does not run (start it: rtqec run CONFIG), or it has another [service] name or runtime_dir: "
        "$RUNTIME_DIRECTORY and $XDG_RUNTIME_DIR decide where that is, and they differ from user to user."
    )


def describe_status(reading: ServiceReading | None, interval: Interval | None) -> dict[str, Any]:
    """Everything, as plain values. Times are in us, rates per second over the last `seconds`."""
    if reading is None:
        return {"running": False, "well": False}
    daemon = {key: getattr(reading, key) for key in ("state", "version", "pid", "started_at", "config", "rss_bytes")}
    return {
        "running": reading.alive,
        "well": is_well(reading),
        **daemon,
        "up_s": (reading.taken_ns - reading.started_ns) / NS_PER_S if reading.alive else None,
        "seconds": interval.seconds if interval is not None else None,
        "alarms": [alarm.__dict__ for alarm in find_alarms(reading, interval)],
        "lanes": [lane.__dict__ for lane in reading.lanes],
        "patches": [_describe_patch(patch, reading, interval) for patch in reading.patches],
    }


def _describe_patch(patch: PatchReading, reading: ServiceReading, interval: Interval | None) -> dict[str, Any]:
    recent = interval.patches.get(patch.facts.id) if interval is not None else None
    last = patch.last
    return {
        **patch.facts.__dict__,
        "budget_us": patch.budget_us,
        "steps": patch.steps,
        "backlog": {"rounds": patch.backlog, "max": patch.backlog_max, "bound": patch.backlog_bound},
        "frame": "tainted" if last is not None and last.tainted_since is not None else "clean",
        "last_correction": None if last is None else last.__dict__ | {
            "rung": last.rung.name.lower(), "reason": last.reason.name.lower(),
            "age_s": (reading.taken_ns - last.published_ns) / NS_PER_S,
        },
        "since_start": _describe_counts(patch.counts),
        "recent": None if recent is None or interval is None else _describe_counts(recent) | {
            "rounds_per_s": recent.by_name["rounds"] / interval.seconds,
            "corrections_per_s": int(recent.rungs.sum()) / interval.seconds,
        },
    }  # fmt: skip


def _describe_counts(counts: Counts) -> dict[str, Any]:
    fractions = counts.detection_fractions
    return {
        "counters": counts.by_name,
        "corrections": {
            f"{rung.name.lower()}/{reason.name.lower()}": int(counts.rungs[rung, reason])
            for rung in Rung for reason in Reason if counts.rungs[rung, reason]
        },
        "times_us": {
            span.name.lower(): {name: counts.percentile_us(span, part) for name, part in _FRACTIONS.items()}
            for span in Span
        },
        "detection_fraction": counts.detection_fraction,
        "detection_fractions": None if fractions is None else fractions.tolist(),
    }  # fmt: skip


def _print_screen(console: Console, reading: ServiceReading, interval: Interval | None) -> None:
    alarms = find_alarms(reading, interval)
    for line in (head_line(reading), *([f"configuration {reading.config}"] if reading.config else [])):
        console.print(line, no_wrap=console.is_terminal, overflow="ellipsis", soft_wrap=not console.is_terminal)
    console.print(_lane_table(reading.lanes))
    shown = reading.patches
    if console.is_terminal:
        room = max(3, console.height - _LINES_AROUND - len(reading.lanes) - min(len(alarms), _ALARMS_MAX))
        troubled = {alarm.where for alarm in alarms}
        shown = tuple(sorted(shown, key=lambda patch: f"patch {patch.facts.id}" not in troubled))[:room]
    console.print(_patch_table(shown, interval, 2 if console.width >= WIDE else 1))
    console.print(LEGEND, style="dim", soft_wrap=True)
    if len(shown) < len(reading.patches):
        console.print(f"and {len(reading.patches) - len(shown)} more; --json has them all", style="dim")
    _print_alarms(console, alarms)


def head_line(reading: ServiceReading) -> Text:
    """The daemon in one line."""
    state = reading.state if reading.alive else "gone"
    line = Text.assemble("rtqec ", (state, "bold green" if is_well(reading) else "bold red"))
    up = f"up {in_time((reading.taken_ns - reading.started_ns) / NS_PER_S)}" if reading.alive else "not running"
    line.append(f"  {up}  pid {reading.pid}  version {reading.version}  {in_mib(reading.rss_bytes)}")
    return line


def _lane_table(lanes: tuple[LaneReading, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("lane", "state", "pid", "restarts", "memory", "feed"):
        table.add_column(name, justify="right" if name in ("pid", "restarts", "memory") else "left", no_wrap=True)
    for lane in lanes:
        state = Text(lane.state if lane.alive or lane.state != "ready" else "gone",
                     style="green" if lane.alive and lane.state == "ready" else "bold red")  # fmt: skip
        pids = "+".join(str(pid) for pid in lane.pids) if any(lane.pids) else NOTHING
        table.add_row(lane.name, state, pids, str(lane.restarts), in_mib(lane.rss_bytes), lane.feed)
    return table


def _patch_table(patches: tuple[PatchReading, ...], interval: Interval | None, num_rungs: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for patch in patches:
        table.add_row(*patch_row(patch, interval, num_rungs))
    return table


def patch_row(patch: PatchReading, interval: Interval | None, num_rungs: int) -> list[Text]:
    """One patch as `COLUMNS`. What was measured just now is shown where there is any, else, dim, since the start."""
    recent = interval.patches.get(patch.facts.id) if interval is not None else None
    rate = recent.by_name["rounds"] / interval.seconds if recent is not None and interval is not None else None
    counts, style = (recent, "") if recent is not None and recent.rungs.any() else (patch.counts, "dim")
    totals = [patch.counts.by_name[name] for name in _PROBLEMS.values()]
    tainted = patch.last is not None and patch.last.tainted_since is not None
    crowded = patch.backlog > BACKLOG_FRACTION * patch.backlog_bound
    return [
        Text(str(patch.facts.id)),
        Text(NOTHING if rate is None else in_short(rate)),
        Text(in_short(patch.backlog), style="bold red" if crowded else ""),
        *(Text(in_us(counts.percentile_us(Span.REACTION, part)), style=style) for part in (0.5, 0.99)),
        Text(in_percent(counts.detection_fraction), style=style),
        Text(rungs_line(counts, num_rungs), style=style),
        *(Text(in_short(total), style="red" if total else "") for total in totals),
        Text("tainted", style="red") if tainted else Text("clean"),
    ]


def rungs_line(counts: Counts, most: int) -> str:
    """Which part of the corrections each rung made, the most frequent first; so many at most."""
    shares = sorted(counts.rung_shares.items(), key=lambda item: -item[1])[:most]
    return " ".join(f"{_RUNG_NAMES[rung]} {in_percent(share)}" for rung, share in shares) or NOTHING


_RUNG_NAMES = {
    Rung.HOLD: "hold", Rung.MATCH: "match", Rung.CORRELATED_MATCH: "corr", Rung.UNION_FIND: "uf",
    Rung.PREDECODED_MATCH: "net", Rung.PREDECODED_CORRELATED_MATCH: "net+corr",
    Rung.SOFT_MATCH: "soft",
}  # fmt: skip


def _print_alarms(console: Console, alarms: list[Alarm]) -> None:
    if not alarms:
        console.print("no alarms", style="green")
    for alarm in alarms[:_ALARMS_MAX] if console.is_terminal else alarms:
        line = Text.assemble("! " if alarm.urgent else "  ", (alarm.where, "bold"), f": {alarm.text}",
                             style="red" if alarm.urgent else "")  # fmt: skip
        console.print(line, no_wrap=console.is_terminal, overflow="ellipsis", soft_wrap=not console.is_terminal)
    if console.is_terminal and len(alarms) > _ALARMS_MAX:
        console.print(f"  and {len(alarms) - _ALARMS_MAX} more; --json has them all", style="dim")
