"""Two decoders on the same shots: the ratio of their failures, with an interval that knows that they are paired."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from rtqec.neural.card import BASELINE_FAILURES_MIN, Claim, Ratio


@dataclass(frozen=True)
class Paired:
    """Failures of one decoder and of the baseline that it is compared with.

    Attributes:
        failures: Shots that the decoder gets wrong.
        baseline: Shots that the baseline gets wrong.
        both: Shots that both get wrong.
    """

    failures: int
    baseline: int
    both: int

    @property
    def broken(self) -> int:
        """Shots that only the decoder gets wrong."""
        return self.failures - self.both

    @property
    def fixed(self) -> int:
        """Shots that only the baseline gets wrong."""
        return self.baseline - self.both

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Bounds of the ratio of the two failure probabilities: hybrid Wilson scores.

        Close to its confidence down to a few failures, where the usual interval of a ratio's logarithm is too narrow.

        Source: Bonett, Price, Journal of Educational and Behavioral Statistics 31, 45 (2006).
        """
        either = self.both + self.fixed + self.broken
        if either == 0:
            return 0.0, math.inf
        counts = (self.failures + 1, self.baseline + 1)
        joint = math.sqrt((self.fixed + self.broken + 2) / (counts[0] * counts[1]))
        apart = sum(math.sqrt((1 - count / (either + 2)) / count) for count in counts)
        z = float(stats.norm.ppf((1 + confidence) / 2)) * joint / apart
        (low, high), (base_low, base_high) = _wilson(self.failures, either, z), _wilson(self.baseline, either, z)
        return low / base_high, high / base_low if base_low else math.inf

    def ratio(self) -> Ratio | None:
        """What a card says of it; None where the baseline never fails."""
        if self.baseline == 0:
            return None
        low, high = self.interval()
        return Ratio(
            ratio=self.failures / self.baseline,
            low=low,
            high=high,
            fixed=self.fixed,
            broken=self.broken,
            claim=self._claim(low, high),
        )

    def _claim(self, low: float, high: float) -> Claim:
        if self.baseline < BASELINE_FAILURES_MIN:
            return "too few"
        return "better" if high < 1 else "worse" if low > 1 else "no difference"


def _wilson(count: int, shots: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a probability, at `z` standard deviations."""
    middle = 2 * count + z * z
    width = z * math.sqrt(z * z + 4 * count * (1 - count / shots))
    scale = 2 * (shots + z * z)
    return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)
