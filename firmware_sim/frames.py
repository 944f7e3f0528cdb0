"""The frames of one patch: each the XOR of the flips of its shot so far, and tainted from its first guess on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.wire import CorrectionFlag, FrameStatus, Reason, Rung

AMENDABLE = (Reason.DEADLINE, Reason.BACKLOG)
"""Why rounds are held that may be decoded later."""


class FrameAccount:
    """What the frames of one patch have come to.

    Args:
        num_shots: Shots that are sent.

    Attributes:
        wrong: Corrections whose frame is not the XOR of all flips of their shot so far.
        wrongly_clean: Corrections whose frame holds a guess that nothing can amend, and does not say so.
        last: uint64, shape (num_shots,): frame after the last correction or amendment of each shot.
        finished: bool, shape (num_shots,): shots whose last correction came.
    """

    def __init__(self, num_shots: int) -> None:
        self.wrong = self.wrongly_clean = 0
        self.last = np.zeros(num_shots, np.uint64)
        self.finished = np.zeros(num_shots, np.bool_)
        self._flips = np.zeros(num_shots, np.uint64)
        self._unsure = np.zeros(num_shots, np.bool_)
        self._guessed = np.zeros(num_shots, np.bool_)
        self._amended = np.zeros(num_shots, np.bool_)

    def follow(self, corrections: NDArray[Any], after_gap: NDArray[np.bool_]) -> None:
        """Check the frames of corrections, in the order in which they came.

        Args:
            corrections: `wire.CORRECTION`, all of known shots.
            after_gap: bool, same shape: those before which others never came.
        """
        shots = corrections["shot_id"].astype(np.int64)
        amendment = (corrections["flags"] & CorrectionFlag.AMENDMENT) != 0
        # Flips that never came are missing from every later frame of the shot.
        self._unsure[shots[after_gap]] = True
        amended = np.zeros(len(self._amended), np.bool_)
        amended[shots[amendment]] = True
        self._amended |= amended
        expected = self._expected(corrections, shots)
        # What is answered by holding ahead of amendments does not know of them.
        unsure = self._unsure[shots] | ((corrections["rung"] == Rung.HOLD) & ~amendment & amended[shots])
        self.wrong += int(((expected != corrections["frame"]) & ~unsure).sum())
        self._follow_guesses(corrections, shots, amendment)
        last = ~amendment & ((corrections["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0)
        self.finished[shots[last]] = True
        self.last[shots[last | amendment]] = corrections["frame"][last | amendment]

    def _expected(self, corrections: NDArray[Any], shots: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The frame after each correction, from the flips."""
        order, first = _by_shot(shots)
        flips = np.bitwise_xor.accumulate(corrections["flips"][order])
        carried = self._flips[shots[order][first]] ^ np.where(first > 0, flips[first - 1], np.uint64(0))
        flips ^= np.repeat(carried, np.diff(first, append=len(order)))
        expected = np.zeros(len(order), np.uint64)
        expected[order] = flips
        self._flips[shots] = expected
        return expected

    def _follow_guesses(
        self, corrections: NDArray[Any], shots: NDArray[np.int64], amendment: NDArray[np.bool_]
    ) -> None:
        """A frame is tainted from the first guess of its shot on. Amendments may clear what they make good."""
        flags = corrections["flags"]
        guess = (flags & CorrectionFlag.DEGRADED != 0) & ~np.isin(corrections["reason"], AMENDABLE)
        guess = (guess | (flags & CorrectionFlag.OPEN_PAST != 0)) & ~amendment
        order, first = _by_shot(shots)
        so_far = np.cumsum(guess[order])
        before = so_far[first] - guess[order][first] - self._guessed[shots[order][first]]
        guessed = np.zeros(len(order), np.bool_)
        guessed[order] = so_far > np.repeat(before, np.diff(first, append=len(order)))
        self._guessed[shots[guess]] = True
        clean = corrections["frame_status"] == FrameStatus.CLEAN
        self.wrongly_clean += int((guessed & clean & ~self._amended[shots]).sum())


def _by_shot(shots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order that brings corrections of one shot together, as they came; where each shot begins in it."""
    order = np.argsort(shots, kind="stable")
    return order, np.flatnonzero(np.diff(shots[order], prepend=-1))
