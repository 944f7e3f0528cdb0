"""The decoding problem restated: events and answers to residual events and flips, on whole shots, the slow way.

    residual = events xor what the answers flip        flips = observables that the answers flip

Whatever the answers are, the residual with the flips is the same problem as the events. What streams (`kernels.filter`)
is compared with this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.neural.effects import CHECK, DATA, Effects


class Restatement:
    """Restates whole shots of one experiment.

    Args:
        effects: What answers do.
        channels: Channels that are answered, in the order of the answers' planes.
    """

    def __init__(self, effects: Effects, channels: tuple[int, ...]) -> None:
        layout, num_layers = effects.layout, effects.num_layers
        n = layout.code.num_cells
        self.effects, self.channels = effects, channels
        checks = np.zeros((len(channels), n, n), np.float32)
        self.answered = np.zeros((2, len(channels), num_layers, n), np.bool_)
        self._exists = np.zeros((len(channels), num_layers, n), np.bool_)
        for at, channel in enumerate(channels):
            for qubit, cells in enumerate(layout.code.checks_of[channel]):
                checks[at, qubit, list(cells)] = 1
            for t in range(num_layers):
                if layout.has(channel, t, num_layers):
                    self._exists[at, t, list(layout.code.cells[channel])] = True
                for cell in range(n):
                    for kind in (DATA, CHECK):
                        cause = (t, kind, channel, cell)
                        self.answered[kind, at, t, cell] = bool(effects.detectors(cause))
        self._checks = checks
        self._logical = effects.logical[list(channels)]

    def __call__(
        self, events: NDArray[np.uint8], answers: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """Restate shots.

        Args:
            events: uint8, shape (num_shots, 2, num_layers, distance, distance).
            answers: bool, shape (num_shots, 2 * len(channels), num_layers, distance, distance): data errors, then wrong
                outcomes. Cells that cannot be answered are ignored.

        Returns:
            Residual events, like `events`; flips, uint64, shape (num_shots,), one bit per observable.
        """
        shots, num_layers = len(events), self.effects.num_layers
        said = answers.reshape(shots, *self.answered.shape) & self.answered
        data, check = said[:, DATA], said[:, CHECK]
        residual = events.reshape(shots, 2, num_layers, -1).copy()
        for at, channel in enumerate(self.channels):
            flipped = (data[:, at].astype(np.float32) @ self._checks[at]).astype(np.uint8) & 1
            flipped ^= check[:, at]
            flipped[:, 1:] ^= check[:, at, :-1]
            residual[:, channel] ^= flipped & self._exists[at]
        odd = np.bitwise_xor.reduce(data, axis=2)
        flips = np.bitwise_xor.reduce(np.where(odd, self._logical, np.uint64(0)), axis=(1, 2))
        return residual.reshape(events.shape), flips
