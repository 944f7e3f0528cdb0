"""The soft hand-over of whole shots, to judge networks by: a shot is one window, matched with the network's weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import ConfigError
from rtqec.plan.model import error_table, window_model
from rtqec.soft_matcher import SoftMatcher, fusion_blossom
from rtqec.training.handover import HardHandOver, Shots, decomposed


class SoftHandOver:
    """One experiment, whose shots are matched with weights of a network.

    Args:
        hard: The same experiment, and its shots.

    Raises:
        ConfigError: fusion-blossom is not installed.
    """

    def __init__(self, hard: HardHandOver) -> None:
        self._hard = hard
        experiment = hard.experiment
        self._rounds = experiment.rounds
        errors = error_table(decomposed(experiment), self._rounds, self._rounds.layout, drop=True)
        num_rounds = self._rounds.num_rounds
        self._matcher = SoftMatcher(
            window_model(errors, self._rounds.layout, 0, num_rounds, num_rounds), experiment.layout
        )

    def __call__(self, shots: Shots, logits: NDArray[np.float32]) -> tuple[NDArray[np.bool_], int]:
        """Weigh and match.

        Args:
            shots: Whole shots.
            logits: Of a network that answers for edges; see `handover.Answers`.

        Returns:
            Where it fails, bool, shape (num_shots,); edges whose weight was the network's, in all shots.
        """
        model, num_rounds = self._matcher.model, self._rounds.num_rounds
        rows = self._rounds.layers_b8(self._hard.detection_events(shots.events).astype(np.bool_)) & model.mask_b8
        answers = logits.reshape(*logits.shape[:3], -1)
        observables = (1 << model.num_observables) - 1
        wrong = np.zeros(len(rows), np.bool_)
        weighed = 0
        for i, row in enumerate(rows):
            answer = self._matcher(row, answers[i], 0, 0, num_rounds)
            weighed += self._matcher.weighed
            wrong[i] = int.from_bytes(answer.tobytes(), "little") & observables != int(shots.flips[i])
        return wrong, weighed


def can_judge_soft() -> bool:
    """Whether fusion-blossom is there."""
    try:
        fusion_blossom()
    except ConfigError:
        return False
    return True
