"""Reads a running daemon from its service file and its lanes' telemetry blocks.

Whoever may read the runtime folder can do that; the daemon is neither asked nor slowed down.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rtqec.config import Config
from rtqec.cudaq.frames import Status
from rtqec.errors import FaultError
from rtqec.kernels.records import INGEST_BEAT, PATH_BEAT, FeedCounter, PathCounter
from rtqec.service.readings import (
    NO_PATCH_CAUSES,
    Counts,
    LaneReading,
    LastCorrection,
    PatchFacts,
    PatchReading,
    ServiceReading,
)
from rtqec.service.state import FORMAT, service_path
from rtqec.telemetry import TelemetryBlock, answered
from rtqec.units import NS_PER_S, us_from_ns
from rtqec.wire import FrameStatus, Reason, Rung

GAUGES = (PathCounter.BACKLOG, PathCounter.BACKLOG_MAX)
"""Path counters that are no counts."""
_CLOCK_SLACK_S = 1.0
"""The kernel counts a process's start in clock ticks."""


class ServiceReader:
    """Reads one deployment's daemon, again and again; blocks stay mapped in between. For one thread at a time.

    Args:
        config: The deployment.
    """

    def __init__(self, config: Config) -> None:
        self._path = service_path(config)
        self._said: tuple[tuple[int, int], dict[str, Any]] | None = None
        self._blocks: dict[Path, tuple[tuple[int, int], TelemetryBlock]] = {}

    @property
    def path(self) -> Path:
        """The service file."""
        return self._path

    def read(self) -> ServiceReading | None:
        """What the daemon is doing; None where no daemon ever was.

        Raises:
            FaultError: The service file is of another version, or may not be read.
        """
        said = self._read_file()
        if said is None:
            return None
        try:
            return self._read_service(said)
        except (KeyError, TypeError) as error:
            raise _foreign(self._path) from error

    def _read_file(self) -> dict[str, Any] | None:
        """The service file, parsed again only when it was replaced."""
        try:
            with self._path.open() as file:
                identity = _identity(os.fstat(file.fileno()))
                if self._said is None or self._said[0] != identity:
                    self._said = identity, json.load(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FaultError(
                f"{self._path} cannot be read: {error.strerror}. It is for the daemon's user and group: join that "
                "group, or run this as that user."
            ) from error
        except ValueError as error:
            raise _foreign(self._path) from error
        if not isinstance(self._said[1], dict) or self._said[1].get("format") != FORMAT:
            raise _foreign(self._path)
        return self._said[1]

    def _read_service(self, said: dict[str, Any]) -> ServiceReading:
        now_ns = time.monotonic_ns()
        started_ns = said["started_ns"]
        process = read_process(said["pid"])
        # A number may have been given to another process since; that one is younger than the daemon.
        alive = process is not None and 0 <= now_ns - started_ns <= (process.age_s + _CLOCK_SLACK_S) * NS_PER_S
        blocks, problems = self._attach_all(Path(lane["telemetry"]) for lane in said["lanes"])
        lanes = [_read_lane(lane, alive, blocks, problems) for lane in said["lanes"]]
        block_of = {lane["name"]: blocks.get(Path(lane["telemetry"])) for lane in said["lanes"]}
        patches = [_read_patch(patch, block_of[patch["lane"]]) for patch in said["patches"]]
        return ServiceReading(
            taken_ns=now_ns,
            alive=alive,
            rss_bytes=process.rss_bytes if process is not None and alive else 0,
            lanes=tuple(lanes),
            patches=tuple(patch for patch in patches if patch is not None),
            **{key: said[key] for key in ("version", "pid", "started_ns", "started_at", "config", "state")},
        )

    def _attach_all(self, paths: Iterable[Path]) -> tuple[dict[Path, TelemetryBlock], dict[Path, str]]:
        """The blocks that can be read, attached anew only where a file was replaced; and why others cannot."""
        kept, problems = {}, {}
        for path in paths:
            try:
                identity = path.stat().st_dev, path.stat().st_ino
                held = self._blocks.get(path)
                is_same = held is not None and held[0] == identity
                kept[path] = held if held is not None and is_same else (identity, TelemetryBlock.attach(path))
            except (OSError, FaultError) as error:
                problems[path] = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        self._blocks = kept
        return {path: block for path, (_, block) in kept.items()}, problems


def read_service(config: Config) -> ServiceReading | None:
    """One reading; see `ServiceReader.read`."""
    return ServiceReader(config).read()


@dataclass(frozen=True)
class ProcessReading:
    """A process that runs."""

    age_s: float
    rss_bytes: int


def read_process(pid: int) -> ProcessReading | None:
    """How old a process is and what memory it holds; None where there is none, or only a zombie."""
    try:
        # The name, in parentheses, may hold anything. See proc(5): fields 3, 22 and 24.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    if pid <= 0 or words[0] in ("Z", "X"):
        return None
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(words[19]) / os.sysconf("SC_CLK_TCK")
    return ProcessReading(age_s, int(words[21]) * os.sysconf("SC_PAGE_SIZE"))


def _read_lane(
    lane: dict[str, Any], daemon_alive: bool, blocks: dict[Path, TelemetryBlock], problems: dict[Path, str]
) -> LaneReading:
    path = Path(lane["telemetry"])
    block = blocks.get(path)
    pids = tuple(dict.fromkeys((lane["pid"], lane["path_pid"])))
    processes = [read_process(pid) for pid in pids if daemon_alive]
    return LaneReading(
        pids=pids,
        alive=bool(processes) and None not in processes,
        rss_bytes=sum(process.rss_bytes for process in processes if process is not None),
        beats=(int(block.control[INGEST_BEAT]), int(block.control[PATH_BEAT])) if block is not None else (0, 0),
        dropped={
            cause: int(block.feed_counters[-1, FeedCounter[cause.upper()]]) if block is not None else 0
            for cause in NO_PATCH_CAUSES
        },
        problem=problems.get(path),
        **{key: lane[key] for key in ("name", "state", "restarts", "feed", "publish")},
    )


def _read_patch(said: dict[str, Any], block: TelemetryBlock | None) -> PatchReading | None:
    """None where its lane's block cannot be read, or is not yet of this patch."""
    if block is None or said["id"] not in block.patch_ids:
        return None
    row = int(np.flatnonzero(block.patch_ids == said["id"])[0])
    facts = PatchFacts(**{field.name: said[field.name] for field in fields(PatchFacts)})
    record = block.patches[row]
    path = block.path_counters[row]
    return PatchReading(
        facts=facts,
        budget_us=us_from_ns(int(record["budget_ns"])),
        steps=tuple(step for k, step in enumerate(facts.ladder) if int(record["steps_mask"]) >> k & 1),
        counts=_read_counts(block, row, facts.num_detectors),
        backlog=int(path[PathCounter.BACKLOG]),
        backlog_max=int(path[PathCounter.BACKLOG_MAX]),
        backlog_bound=int(record["backlog_rounds"]),
        last=_read_last(block, row),
    )


def _read_counts(block: TelemetryBlock, row: int, num_detectors: int) -> Counts:
    feed = {c.name.lower(): int(block.feed_counters[row, c]) for c in FeedCounter}
    feed |= {answered(status): int(block.answers[row, status]) for status in Status}
    path = {c.name.lower(): int(block.path_counters[row, c]) for c in PathCounter if c not in GAUGES}
    # Ingest counts a round before its events: read in the other order, no detector fires more often than once a round.
    events = block.event_counts[row, :num_detectors].copy()
    return Counts(
        feed | path, block.rung_counts[row].copy(), block.span_counts[row].copy(), events, int(block.event_rounds[row])
    )


def _read_last(block: TelemetryBlock, row: int) -> LastCorrection | None:
    found = block.corrections_of(row, int(block.written[row]) - 1, 1 << 62)
    if not len(found):
        return None
    newest = found[-1]
    tainted = newest["frame_status"] == FrameStatus.TAINTED
    return LastCorrection(
        int(newest["shot_id"]),
        int(newest["window_index"]),
        int(newest["first_round"]),
        int(newest["num_rounds"]),
        Rung(int(newest["rung"])),
        Reason(int(newest["reason"])),
        int(newest["tainted_since"]) if tainted else None,
        int(newest["published_ns"]),
    )


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns


def _foreign(path: Path) -> FaultError:
    return FaultError(
        f"{path} is not the service file of a daemon of this version. Look at it with the rtqec that runs the daemon."
    )
