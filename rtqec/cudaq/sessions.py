"""What the daemon keeps of its CUDA-Q decoders: one session per patch, in memory that outlives a lane that dies."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import ConfigError
from rtqec.kernels.session import FAILED, SESSION
from rtqec.layout import bytes_for_bits, words_for_bytes
from rtqec.plan import Plan
from rtqec.wire import ROUNDS_HEADER_BYTES


class Sessions:
    """The sessions of a lane's patches. A lane is a fork of a process that stands by: both see the same memory, and so
    does the lane that takes the place of one that died.

    Args:
        plans: One per patch.
        patch_ids: Their ids: the decoder ids of requests.

    Attributes:
        records: `SESSION`, shape (num_patches,).
        desk: What compiled code takes; see `kernels.session`.

    Raises:
        ConfigError: A plan cannot be served to CUDA-Q.
    """

    def __init__(self, plans: list[Plan], patch_ids: list[int]) -> None:
        for patch_id, plan in zip(patch_ids, plans, strict=True):
            check_plan(patch_id, plan)
        memory = mmap.mmap(-1, SESSION.itemsize * len(plans))
        self.records: NDArray[Any] = np.frombuffer(memory, SESSION)
        widths: list[int] = []
        num_bytes = 0
        for session, patch_id, plan in zip(self.records, patch_ids, plans, strict=True):
            blocks = [layer.num_measurements for layer in (*plan.first_layers, plan.last_layer)]
            session["decoder_id"], session["num_observables"] = patch_id, plan.num_observables
            session["num_measurements"] = sum(blocks)
            session["first_block"], session["num_blocks"] = len(widths), len(blocks)
            session["bits_offset"] = num_bytes
            widths += blocks
            num_bytes += bytes_for_bits(max(blocks))
        message = np.zeros(words_for_bytes(ROUNDS_HEADER_BYTES + bytes_for_bits(max(widths))), np.uint64)
        self.desk = (
            self.records, np.array(widths, np.int64), np.zeros(num_bytes, np.uint8), message, message.view(np.uint8),
        )  # fmt: skip

    def take_up(self, restarted: bool, written: NDArray[np.int64], shots: list[int]) -> list[int]:
        """Go on where a lane before has left them. What it had of a shot that was not complete is gone with it.

        Args:
            restarted: Whether there was one.
            written: int64, shape (num_patches,): corrections of each patch so far.
            shots: The newest shot of each patch that its journal has.

        Returns:
            The decoders that must be reset.
        """
        failed = []
        for session, patch_written, shot in zip(self.records, written.tolist(), shots, strict=True):
            # Of another process nothing is known but that there was one.
            if session["accepted"] or (restarted and not session["known"]):
                session["state"] = FAILED
                session["accepted"] = session["block"] = session["filled"] = 0
                failed.append(int(session["decoder_id"]))
            session["known"] = 1
            session["shot_id"] = max(int(session["shot_id"]), shot)
            session["collected"] = patch_written
        return failed


def check_plan(patch_id: int, plan: Plan) -> None:
    """Refuse what CUDA-Q's requests cannot say.

    Raises:
        ConfigError: The plan is endless, or needs sweep bits.
    """
    where = f"[plan] of patch {patch_id}"
    if plan.endless:
        raise ConfigError(
            where, 'has rounds = "endless", but with [listen.cudaq] a shot has a number of measurements.',
            "CUDA-Q's requests do not say where a shot ends: it is complete when all its measurements have come.",
            "Give a number of rounds.",
        )  # fmt: skip
    if plan.num_sweep_bits:
        raise ConfigError(
            where, f"needs {plan.num_sweep_bits} sweep bits of every shot; with [listen.cudaq] the bound is 0.",
            "CUDA-Q's requests carry measurements only.", "Give a circuit without sweep bits.",
        )  # fmt: skip
