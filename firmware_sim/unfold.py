"""Measurements that fold to given detection events: what hardware would have sent, where there is no circuit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import ConfigError
from rtqec.plan import Plan


def measurements_of_events(plan: Plan, events: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Random outcomes, some of which are flipped such that a finite plan folds them to these events.

    Args:
        plan: Knows how measurements are folded.
        events: bool, shape (num_shots, num_detectors), in the order of the model.
        seed: Of the outcomes.

    Returns:
        bool, shape (num_shots, num_measurements).

    Raises:
        ConfigError: The detectors of a round are not independent, so that some events cannot be.
    """
    rounds, starts = plan.rounds, plan.rounds.block_starts.tolist()
    random = np.random.default_rng(seed)
    bits: NDArray[np.bool_] = random.random((len(events), starts[-1])) < 0.5
    for t in range(rounds.num_rounds):
        program = plan.layer(t, t == rounds.num_rounds - 1).program
        assert program is not None
        members = np.flatnonzero(rounds.detector_round == t)
        if len(members) and not len(program.fixes):
            raise ConfigError(
                "[source] kind", f'is "simulated", but the detectors of round {t} depend on each other.',
                "There are no measurements for most of their events.",
                'Set [feed] payload = "detection_events", or feed recorded shots.',
            )  # fmt: skip
        wrong = np.zeros((len(events), len(members)), np.bool_)
        wrong[:, rounds.detector_slot[members]] = events[:, members]
        wrong ^= program.constants.astype(np.bool_)
        for slot, back, place in program.sources.tolist():
            wrong[:, slot] ^= bits[:, starts[t - back] + place]
        for slot, place in program.fixes.tolist():
            bits[:, starts[t] + place] ^= wrong[:, slot]
    return bits
