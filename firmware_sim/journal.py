"""Corrections that were made but did not come: from the daemon's journal, read in place or asked for over control."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.config import Config
from rtqec.curve import ClientKeys
from rtqec.errors import RtqecError
from rtqec.service.ask import ask
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import CORRECTION

Journal = Callable[[int, int, int], NDArray[Any]]
"""Patch id, first window index, the one behind the last -> `wire.CORRECTION`, those that it still has, oldest first."""


def journal_of_blocks(blocks: Iterable[TelemetryBlock]) -> Journal:
    """The journal of a daemon on this machine.

    Args:
        blocks: The telemetry blocks of its lanes. They outlive a lane that dies.
    """
    rows = {patch_id: (block, row) for block in blocks for row, patch_id in enumerate(block.patch_ids.tolist())}

    def look_up(patch_id: int, first: int, stop: int) -> NDArray[Any]:
        block, row = rows[patch_id]
        return block.corrections_of(row, first, stop)

    return look_up


def journal_over_control(config: Config, keys: ClientKeys | None) -> Journal:
    """The journal of a daemon that answers at `[control] endpoint`.

    What it refuses, or does not answer in time, is as if it had not been kept.

    Args:
        config: The deployment.
        keys: What to show on tcp.

    Raises:
        ConfigError: There is no such endpoint.
        NoPeerError: Nobody answers there.
    """
    ask(config, {"verb": "hello"}, keys=keys)

    def look_up(patch_id: int, first: int, stop: int) -> NDArray[Any]:
        pieces = [np.zeros(0, CORRECTION)]
        while first < stop:
            try:
                answer = ask(config, {"verb": "resend", "patch": patch_id, "first": first, "stop": stop}, keys=keys)
            except RtqecError:
                break
            if not answer["ok"] or not answer["corrections"]:
                break
            pieces.append(np.frombuffer(b"".join(answer["corrections"]), CORRECTION))
            first = int(pieces[-1]["window_index"][-1]) + 1
        return np.concatenate(pieces)

    return look_up
