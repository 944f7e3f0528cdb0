"""Windowed against whole-shot matching, on the same shots, without a network: does the windowing cost accuracy?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rtqec.config import VerifyTable
from rtqec.plan import Plan
from rtqec.reference import WholeShotMatcher
from rtqec.windowed import WindowedDecoder

_SHOTS_AT_ONCE = 4096
_EXPLAINED_SHOTS = 200
"""Shots per patch whose committed edges are checked against their detection events; edges are slow to get."""


@dataclass(frozen=True)
class Pairing:
    """Two decoders on the same shots.

    Attributes:
        shots: How many.
        failures, failures_whole_shot: Shots decoded wrongly by windows, and on whole shots.
        worse, better: Shots on which they disagree and the windows are wrong, or right.
        unexplained: Of `explained_shots`, those with syndrome left after all commits.
    """

    shots: int
    failures: int
    failures_whole_shot: int
    worse: int
    better: int
    explained_shots: int
    unexplained: int

    @property
    def disagreements(self) -> int:
        """Shots with different predictions (of one observable: exactly one is right)."""
        return self.worse + self.better

    def difference_bounds(self, confidence: float) -> tuple[float, float]:
        """One-sided exact bounds of worse minus better, in shots, given how many disagree.

        Given the number of disagreements, the worse ones are binomial; Clopper and Pearson's interval of their
        share gives the bounds.
        """
        if self.disagreements == 0:
            return 0.0, 0.0
        level = 2 * confidence - 1
        share = stats.binomtest(self.worse, self.disagreements).proportion_ci(level, method="exact")
        return (2 * share.low - 1) * self.disagreements, (2 * share.high - 1) * self.disagreements

    @property
    def mcnemar_p(self) -> float:
        """Exact two-sided McNemar test that worse and better are equally likely."""
        return float(stats.binomtest(self.worse, self.disagreements).pvalue) if self.disagreements else 1.0

    def wilson(self, failures: int, confidence: float) -> tuple[float, float]:
        """Wilson interval of a failure probability per shot."""
        interval = stats.binomtest(failures, self.shots).proportion_ci(confidence, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Verdict:
    """What the pairing says about the configured bound: "holds", "violated" or "inconclusive"."""

    pairing: Pairing
    bound_shots: float
    confidence: float

    @property
    def word(self) -> str:
        """The verdict."""
        low, high = self.pairing.difference_bounds(self.confidence)
        if self.pairing.unexplained or low > self.bound_shots:
            return "violated"
        return "holds" if high <= self.bound_shots else "inconclusive"

    def as_json(self) -> dict[str, Any]:
        """All numbers, for machines."""
        low, high = self.pairing.difference_bounds(self.confidence)
        return asdict(self.pairing) | {
            "disagreements": self.pairing.disagreements,
            "mcnemar_p": self.pairing.mcnemar_p,
            "failure_interval": self.pairing.wilson(self.pairing.failures, self.confidence),
            "failure_interval_whole_shot": self.pairing.wilson(self.pairing.failures_whole_shot, self.confidence),
            "worse_minus_better": self.pairing.worse - self.pairing.better,
            "worse_minus_better_bounds": (low, high),
            "bound_shots": self.bound_shots,
            "confidence": self.confidence,
            "verdict": self.word,
        }


def verify_plan(plan: Plan, table: VerifyTable) -> Verdict:
    """Pair windows and whole shots on simulated shots of the plan's experiment.

    Args:
        plan: Of an endless one, the finite piece that it was derived from is used.
        table: `[verify]`.
    """
    sampler = plan.experiment.own_dem.compile_sampler(seed=table.seed)
    circuit = plan.experiment.circuit
    circuit_sampler = circuit.compile_detector_sampler(seed=table.seed) if circuit is not None else None
    pairs = Pairer(plan)
    for start in range(0, table.shots, _SHOTS_AT_ONCE):
        count = min(_SHOTS_AT_ONCE, table.shots - start)
        if circuit_sampler is not None:
            events, flips = circuit_sampler.sample(count, separate_observables=True)
        else:
            events, flips, _ = sampler.sample(count)
        pairs.add(events, flips)
    pairing = pairs.pairing
    return Verdict(pairing, table.worse_minus_better_max * pairing.failures_whole_shot, table.confidence)


class Pairer:
    """Decodes shots both ways and counts.

    Args:
        plan: The windows, and the experiment whose own error model the whole shots are matched with.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._windowed = WindowedDecoder(plan)
        self._whole = WholeShotMatcher(plan.experiment.own_dem, plan.correlated)
        self._counts = np.zeros(7, np.int64)

    def add(self, detection_events: NDArray[np.bool_], observable_flips: NDArray[np.bool_]) -> None:
        """Decode some shots.

        Args:
            detection_events: bool, shape (num_shots, num_detectors), in the circuit's order.
            observable_flips: bool, shape (num_shots, num_own_observables): the truth.
        """
        explain = max(0, min(len(detection_events), _EXPLAINED_SHOTS - int(self._counts[5])))
        layers_b8 = self._plan.rounds.layers_b8(detection_events)
        unexplained = self._windowed.unexplained(layers_b8[:explain])
        own = self._windowed(layers_b8)[:, : observable_flips.shape[1]]
        whole = self._whole(np.packbits(detection_events, axis=1, bitorder="little"))
        wrong = (own != observable_flips).any(axis=1)
        whole_wrong = (whole != observable_flips).any(axis=1)
        self._counts += [
            len(own), wrong.sum(), whole_wrong.sum(), (wrong & ~whole_wrong).sum(), (~wrong & whole_wrong).sum(),
            explain, unexplained,
        ]  # fmt: skip

    @property
    def pairing(self) -> Pairing:
        """What was counted so far."""
        return Pairing(*self._counts.tolist())
