"""What windows are compared with: PyMatching on whole shots, as a user would run it without rtqec."""

from __future__ import annotations

import numpy as np
import pymatching
import stim
from numpy.typing import NDArray


class WholeShotMatcher:
    """The reference: PyMatching on the whole shot at once, on the experiment's own error model.

    Args:
        dem: The detector error model, errors decomposed.
        correlated: As for `Matcher`.
    """

    def __init__(self, dem: stim.DetectorErrorModel, correlated: bool) -> None:
        self.correlated = correlated
        self._matching = pymatching.Matching.from_detector_error_model(dem, enable_correlations=correlated)

    def __call__(self, detection_events_b8: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Predict observable flips of whole shots.

        Args:
            detection_events_b8: uint8, shape (num_shots, ceil(num_detectors / 8)), in the model's own order.

        Returns:
            bool, shape (num_shots, num_observables).
        """
        predicted = self._matching.decode_batch(
            detection_events_b8, bit_packed_shots=True, enable_correlations=self.correlated
        )
        return np.asarray(predicted, np.bool_)
