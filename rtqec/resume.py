"""Where a lane goes on that takes the place of one that died: what its journal says was answered last.

The rounds after that are gone, with the raw history that folding needs. So each open shot is taken up at its first
unanswered round with a hole in front, exactly as after a gap that cannot be filled: the rounds up to the next one that
comes are held, then windows have an open past, and the frame is tainted until the shot ends.
"""

from __future__ import annotations

import numpy as np

from rtqec.batch import Streams
from rtqec.feed import Intake
from rtqec.kernels.records import ShotState
from rtqec.kernels.shot import NEVER
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import CorrectionFlag, FrameStatus


def resume(telemetry: TelemetryBlock, intake: Intake, streams: Streams, now_ns: int) -> list[dict[str, int]]:
    """Take up every patch where the telemetry block says that it was left.

    Args:
        telemetry: Of the lane before.
        intake, streams: Of a lane that has not begun.
        now_ns: CLOCK_MONOTONIC: a shot that has been silent since is not silent for longer.

    Returns:
        The shots that were open: patch, shot, first unanswered round.
    """
    taken_up = []
    for p in range(len(streams.patches)):
        state, fed = streams.states[p], intake.states[p]
        # A reset that was asked for and obeyed is not asked for again.
        state["resets"] = telemetry.resets[p]
        state["window_index"] = telemetry.written[p]
        newest = _newest_answer(telemetry, p)
        if newest is None or newest["flags"] & CorrectionFlag.LAST_OF_SHOT:
            continue
        patch, limits = streams.patches[p], intake.tables.patches[p]
        stop = int(newest["first_round"]) + int(newest["num_rounds"])
        blind = limits["num_sweep_bits"] and not limits["events"]
        state["open"], state["num_shots"] = 1, 1
        state["shot_id"] = fed["shot_id"] = newest["shot_id"]
        # Ring ordinal 0 is the first slot that will be written; it is round `stop`.
        state["base"], state["start"], state["scanned"], state["origin"] = -stop, stop, stop, stop
        state["num_rounds"] = -1
        state["hole_stop"] = NEVER if blind else stop + max(int(patch["look_back"]), 1)
        state["frame"] = _frame_after(telemetry, p, newest)
        state["tainted"] = newest["frame_status"] == FrameStatus.TAINTED
        state["tainted_since"] = newest["tainted_since"]
        fed["shot_state"], fed["next_round"], fed["heard_ns"] = ShotState.OPEN, stop, now_ns
        taken_up.append({"patch": int(patch["patch_id"]), "shot": int(newest["shot_id"]), "round": stop})
    return taken_up


def _frame_after(telemetry: TelemetryBlock, p: int, newest: np.void) -> np.uint64:
    """The frame of the open shot: what was amended behind the last answer belongs to it."""
    later = telemetry.corrections_of(p, int(newest["window_index"]) + 1, 1 << 62)
    flips = later["flips"][later["shot_id"] == newest["shot_id"]]
    return np.uint64(newest["frame"] ^ np.bitwise_xor.reduce(flips, initial=np.uint64(0)))


def _newest_answer(telemetry: TelemetryBlock, p: int) -> np.void | None:
    """The last correction that answered rounds for the first time."""
    kept = telemetry.corrections_of(p, 0, 1 << 62)
    first_answers = kept[(kept["flags"] & CorrectionFlag.AMENDMENT) == 0]
    return first_answers[-1] if len(first_answers) else None
