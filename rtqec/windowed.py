"""The plan's windows over many shots at once, without a stream: for verification and for other tools' scripts.

The arithmetic is that of the running path (`commit` and the kernels), written slowly over whole arrays, so that each
checks the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.match import Matcher
from rtqec.plan import Plan
from rtqec.plan.model import WindowModel
from rtqec.plan.schedule import WindowRounds, windows_of_shot
from rtqec.union_find import UnionFind
from rtqec.wire import CorrectionFlag, Rung

SHOTS_AT_ONCE = 1024
"""Bounds the memory of a call."""


class WindowedDecoder:
    """Decodes finite shots window by window.

    Args:
        plan: A plan; of an endless one, shots of any length that it can close.
        rung: How a call decodes every window; as the plan matches, where not given.
    """

    def __init__(self, plan: Plan, rung: Rung | None = None) -> None:
        self.plan = plan
        self._own_rung = Rung.CORRELATED_MATCH if plan.correlated else Rung.MATCH
        self._rung = self._own_rung if rung is None else rung
        self._matchers: dict[int, Matcher] = {}
        self._decoders: dict[tuple[int, Rung], Matcher | UnionFind] = {}

    def matcher(self, model_index: int) -> Matcher:
        """The matcher of one of the plan's models, made when it is first needed."""
        if model_index not in self._matchers:
            self._matchers[model_index] = Matcher(self.plan.models[model_index], self.plan.correlated)
        return self._matchers[model_index]

    def decoder(
        self, window: WindowRounds, rung: Rung, open_past: bool = False, lost: int | None = None
    ) -> Matcher | UnionFind:
        """What decodes a window of any shape on any rung, made when it is first needed.

        Args:
            window: What it looks at and decides.
            rung: How.
            open_past: Whether the rounds before it are gone.
            lost: The first of its rounds that was lost, of the shot.

        Raises:
            KeyError: The plan has no such window.
        """
        plan = self.plan
        shapes = plan.shapes["correlated" if rung == Rung.CORRELATED_MATCH else "plain"]
        row = plan.row(window.start)
        if window.closing:
            index = shapes.closing[row, window.stop - window.start, open_past]
        else:
            multiple = (window.commit_stop - window.start) // plan.window.commit_rounds
            index = shapes.open[row, multiple, open_past]
        if rung == self._own_rung:
            if lost is not None and index in plan.erased:
                erased = plan.erased[index][lost - window.start]
                index = index if erased < 0 else erased
            return self.matcher(index)
        if (index, rung) not in self._decoders:
            model = plan.models[index]
            self._decoders[index, rung] = (
                UnionFind(model, SHOTS_AT_ONCE)
                if rung == Rung.UNION_FIND
                else Matcher(model, rung == Rung.CORRELATED_MATCH)
            )
        return self._decoders[index, rung]

    def decode(self, residual: NDArray[np.uint8], window: WindowRounds, decoder: Matcher | UnionFind) -> int:
        """Decode one window of one shot, and hand its seam on.

        Args:
            residual: uint8, shape (num_rounds * layer_bytes,): detection events, with the seams of earlier windows;
                this one's is XORed into it.

        Returns:
            Observable flips, LSB first.

        Raises:
            ValueError: The events cannot be paired.
        """
        plan, layout, model = self.plan, self.plan.layout, decoder.model
        row = np.zeros((1, model.row_bytes), np.uint8)
        seen = residual[window.start * layout.layer_bytes : window.stop * layout.layer_bytes]
        row[0, : len(seen)] = seen
        answer = np.unpackbits(decoder(row & model.mask_b8)[0], bitorder="little")
        for bit, (rounds_after, slot) in enumerate(model.seam.tolist(), start=plan.num_observables):
            byte = (window.commit_stop + rounds_after) * layout.layer_bytes + slot // 8
            residual[byte] ^= answer[bit] << np.uint8(slot % 8)
        return sum(int(bit) << i for i, bit in enumerate(answer[: plan.num_observables].tolist()))

    def replay(self, layers_b8: NDArray[np.uint8], corrections: NDArray[Any], filled: Sequence[int] = ()) -> list[int]:
        """Decode a shot again as its corrections say that it was decoded.

        Args:
            layers_b8: uint8, shape (num_rounds * layer_bytes,): its detection events, those of lost rounds as filled.
            corrections: `wire.CORRECTION`, all of the shot, as they came.
            filled: Its rounds that were lost, in order.

        Returns:
            Places in `corrections` whose flips are not what comes out.
        """
        residual = layers_b8.copy()
        wrong = []
        for i, correction in enumerate(corrections):
            start = int(correction["first_round"])
            commit_stop = start + int(correction["num_rounds"])
            closing = bool(correction["flags"] & CorrectionFlag.LAST_OF_SHOT)
            stop = commit_stop if closing else commit_stop + self.plan.window.buffer_rounds
            flips = 0
            if correction["rung"] != Rung.HOLD:
                window = WindowRounds(i, start, stop, commit_stop, closing)
                open_past = bool(correction["flags"] & CorrectionFlag.OPEN_PAST)
                lost = next((t for t in filled if start <= t < stop), None)
                decoder = self.decoder(window, Rung(int(correction["rung"])), open_past, lost)
                flips = self.decode(residual, window, decoder)
            if flips != int(correction["flips"]):
                wrong.append(i)
        return wrong

    def __call__(self, layers_b8: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Predict observable flips.

        Args:
            layers_b8: uint8, shape (num_shots, num_rounds * layer_bytes), as `RoundMap.layers_b8` makes them.

        Returns:
            bool, shape (num_shots, num_observables).
        """
        flips = np.zeros((len(layers_b8), self.plan.num_observables), np.bool_)
        for start in range(0, len(layers_b8), SHOTS_AT_ONCE):
            piece = slice(start, start + SHOTS_AT_ONCE)
            flips[piece] = self._decode_together(layers_b8[piece])
        return flips

    def _decode_together(self, layers_b8: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """As a call, at most `SHOTS_AT_ONCE` shots."""
        plan, layout = self.plan, self.plan.layout
        residual = layers_b8.copy()
        flips = np.zeros((len(layers_b8), plan.num_observables), np.bool_)
        for window in windows_of_shot(layers_b8.shape[1] // layout.layer_bytes, plan.window):
            decoder = self.decoder(window, self._rung)
            model = decoder.model
            answer = np.unpackbits(decoder(self._rows(residual, window, model)), axis=1, bitorder="little")
            flips ^= answer[:, : plan.num_observables].astype(np.bool_)
            for bit, (rounds_after, slot) in enumerate(model.seam.tolist(), start=plan.num_observables):
                byte = (window.commit_stop + rounds_after) * layout.layer_bytes + slot // 8
                residual[:, byte] ^= answer[:, bit] << np.uint8(slot % 8)
        return flips

    def unexplained(self, layers_b8: NDArray[np.uint8]) -> int:
        """Account for the syndrome edge by edge.

        Decodes each window to edges and keeps those that it may commit; what they flip beyond the commit region goes
        to the next window. The detectors of all committed edges together must be exactly the detection events. (Where
        several matchings weigh the same, the edges need not be those of `__call__`.)

        Args:
            layers_b8: As for `__call__`. Slow: one window of one shot at a time.

        Returns:
            Shots with events left over, or flipped without cause.
        """
        num_rounds = layers_b8.shape[1] // self.plan.layout.layer_bytes
        bits = self.plan.layout.layer_bits
        known = self._decoded_detectors(num_rounds)
        count = 0
        for shot_b8 in layers_b8:
            residual = shot_b8[np.newaxis].copy()
            left = np.unpackbits(shot_b8, bitorder="little").astype(np.bool_) & known
            for window, matcher in self._windows(num_rounds):
                edges = matcher.edges(self._rows(residual, window, matcher.model)[0])
                for edge in edges.tolist():
                    detectors = [window.start * bits + detector for detector in edge if detector >= 0]
                    if min(detectors) // bits < window.commit_stop:
                        left[detectors] ^= True
                        for detector in detectors:
                            residual[0, detector // 8] ^= np.uint8(1 << detector % 8)
            count += bool(left.any())
        return count

    def _windows(self, num_rounds: int) -> Iterator[tuple[WindowRounds, Matcher]]:
        """The windows of a shot, each with its matcher."""
        indices = self.plan.window_indices(num_rounds)
        for window, index in zip(windows_of_shot(num_rounds, self.plan.window), indices, strict=True):
            yield window, self.matcher(index)

    def _rows(self, residual: NDArray[np.uint8], window: WindowRounds, model: WindowModel) -> NDArray[np.uint8]:
        """The detection events that a window sees, uint8, shape (num_shots, model.row_bytes)."""
        layer_bytes = self.plan.layout.layer_bytes
        columns = slice(window.start * layer_bytes, window.stop * layer_bytes)
        return np.ascontiguousarray(residual[:, columns] & model.mask_b8)

    def _decoded_detectors(self, num_rounds: int) -> NDArray[np.bool_]:
        """Detectors that the windows of a shot know, bool, shape (num_rounds * layer_bits,)."""
        bits = self.plan.layout.layer_bits
        known = np.zeros(num_rounds * bits, np.bool_)
        for window, matcher in self._windows(num_rounds):
            mask = np.unpackbits(matcher.model.mask_b8, bitorder="little").astype(np.bool_)
            known[window.start * bits : window.stop * bits] |= mask
        return known
