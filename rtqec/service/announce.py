"""What CUDA-Q's decoding server prints on stdout: its tools wait for these lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rtqec.config import Config
from rtqec.cudaq.frames import ended_lines, ready_line
from rtqec.kernels.records import FeedCounter
from rtqec.telemetry import TelemetryBlock


def announce_ready(config: Config, patches: Iterable[dict[str, Any]]) -> None:
    """Say on which ports the decoders are asked, where there is `[listen.cudaq]`.

    Args:
        patches: As `Lane.describe` says.
    """
    if config.listen.cudaq is not None:
        ports = {patch["id"]: patch["cudaq_port"] for patch in patches}
        _say([ready_line({patch.id: ports[patch.id] for patch in config.patch})])


def announce_end(config: Config, blocks: Iterable[TelemetryBlock]) -> None:
    """Say how many requests each decoder was asked, where there is `[listen.cudaq]`."""
    if config.listen.cudaq is not None:
        counts = {
            int(patch_id): int(block.feed_counters[row, FeedCounter.MESSAGES])
            for block in blocks
            for row, patch_id in enumerate(block.patch_ids)
        }
        _say(ended_lines({patch.id: counts[patch.id] for patch in config.patch}))


def _say(lines: list[str]) -> None:
    """Write lines that a reader sees at once; one that has gone is none of ours."""
    with suppress(OSError):
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
