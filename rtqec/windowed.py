"""The plan's windows over many shots at once, without a stream: for verification and for other tools' scripts.

The arithmetic is that of the running path (`commit` and the kernels), written slowly over whole arrays, so that each
checks the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.match import Matcher
from rtqec.plan import Plan
from rtqec.plan.schedule import windows_of_shot


class WindowedDecoder:
    """Decodes finite shots window by window.

    Args:
        plan: A plan; of an endless one, shots of any length that it can close.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._matchers: dict[int, Matcher] = {}

    def matcher(self, model_index: int) -> Matcher:
        """The matcher of one of the plan's models, made when it is first needed."""
        if model_index not in self._matchers:
            self._matchers[model_index] = Matcher(self.plan.models[model_index], self.plan.correlated)
        return self._matchers[model_index]

    def __call__(self, layers_b8: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Predict observable flips.

        Args:
            layers_b8: uint8, shape (num_shots, num_rounds * layer_bytes), as `RoundMap.layers_b8` makes them.

        Returns:
            bool, shape (num_shots, num_observables).
        """
        flips, _ = self.decode(layers_b8, explain=0)
        return flips

    def decode(self, layers_b8: NDArray[np.uint8], explain: int) -> tuple[NDArray[np.bool_], int]:
        """Predict observable flips, and account for the syndrome of some shots.

        Args:
            layers_b8: As for `__call__`.
            explain: So many of the first shots are decoded to edges as well: the detectors of all committed edges
                must give exactly the detection events.

        Returns:
            Flips, bool, shape (num_shots, num_observables); and how many of those shots had syndrome left unexplained.
        """
        plan, layout = self.plan, self.plan.layout
        num_rounds = layers_b8.shape[1] // layout.layer_bytes
        residual = layers_b8.copy()
        flips = np.zeros((len(layers_b8), plan.num_observables), np.bool_)
        left = np.unpackbits(layers_b8[:explain], axis=1, bitorder="little").astype(np.bool_)
        left &= self._decoded_detectors(num_rounds)
        indices = plan.window_indices(num_rounds)
        for window, model_index in zip(windows_of_shot(num_rounds, plan.window), indices, strict=True):
            matcher, model = self.matcher(model_index), plan.models[model_index]
            columns = slice(window.start * layout.layer_bytes, window.stop * layout.layer_bytes)
            rows = np.ascontiguousarray(residual[:, columns] & model.mask_b8)
            answer = np.unpackbits(matcher(rows), axis=1, bitorder="little").astype(np.bool_)
            flips ^= answer[:, : plan.num_observables]
            for bit, (rounds_after, slot) in enumerate(model.seam.tolist(), start=plan.num_observables):
                byte = (window.commit_stop + rounds_after) * layout.layer_bytes + slot // 8
                residual[:, byte] ^= answer[:, bit].astype(np.uint8) << np.uint8(slot % 8)
            for shot in range(explain):
                self._strike_out(left[shot], matcher.edges(rows[shot]), window.start, window.commit_stop, num_rounds)
        return flips, int(left.any(axis=1).sum())

    def _decoded_detectors(self, num_rounds: int) -> NDArray[np.bool_]:
        """Detectors that the windows of a shot know, bool, shape (num_rounds * layer_bits,)."""
        plan, bits = self.plan, self.plan.layout.layer_bits
        known = np.zeros(num_rounds * bits, np.bool_)
        for window, index in zip(
            windows_of_shot(num_rounds, plan.window), plan.window_indices(num_rounds), strict=True
        ):
            mask = np.unpackbits(plan.models[index].mask_b8, bitorder="little").astype(np.bool_)
            known[window.start * bits : window.stop * bits] |= mask
        return known

    def _strike_out(
        self, left: NDArray[np.bool_], edges: NDArray[np.int64], start: int, commit_stop: int, num_rounds: int
    ) -> None:
        """Take the detectors of a window's committed edges out of what is left to explain."""
        base, bits = start * self.plan.layout.layer_bits, self.plan.layout.layer_bits
        for edge in edges.tolist():
            detectors = [base + detector for detector in edge if detector >= 0]
            if min(detectors) // bits < commit_stop:
                for detector in detectors:
                    left[detector] ^= True
        assert len(left) == num_rounds * bits
