"""A float engine over a stream: its answers are those over the whole shot, but where a logit lies at the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.openvino_engine import OpenVINOEngine
from rtqec.device.options import EngineOptions
from rtqec.neural.card import read_card
from rtqec.neural.experiment import GridExperiment
from rtqec.predecoder import SHIPPED

pytest.importorskip("openvino", reason="needs the extra cpu")
EPSILON = {"float32": 1e-3, "bfloat16": 0.15}
"""Largest distance from the threshold at which a bit may differ; docs/predecoder.md states them."""
FRACTION_MAX = 1e-4
"""Of the bits that are answered."""
SHOTS, ROUNDS, COMMIT, BUFFER = 30, 30, 5, 6


def engine_of(path: Path, layers: int, outputs: int, precision: str) -> OpenVINOEngine:
    """The shipped network for volumes of so many layers."""
    shape = ChunkShape(1, layers, 5, outputs)
    try:
        return OpenVINOEngine(path.with_suffix(".onnx"), shape, EngineOptions(precision))  # type: ignore[arg-type]
    except EngineError as error:
        pytest.skip(str(error).splitlines()[1])


def answer(engine: OpenVINOEngine, volume: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """One call: (outputs, layers, distance, distance)."""
    engine.volume[0] = volume
    engine.inside[0, 0, :, 0, 0] = inside
    engine.enqueue(1)
    assert engine.wait(10_000_000_000)
    engine.take()
    return engine.logits[0].copy()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("precision", EPSILON)
def test_bits_differ_only_at_the_threshold(path: Path, precision: str) -> None:
    """Shots in chunks with a halo, against shots as a whole, in the same precision: where a bit differs its logit is
    within epsilon of the card's threshold, and few do.
    """
    card = read_card(path)
    halo, outputs = card.network.spec.halo, card.network.outputs
    experiment = GridExperiment.generated("surface_code:rotated_memory_z", 5, ROUNDS - 1, 0.006)
    threshold = card.threshold(5, 0.006)
    window = COMMIT + BUFFER
    whole = engine_of(path, ROUNDS, outputs, precision)
    pieces = engine_of(path, window + halo, outputs, precision)
    assert experiment.circuit is not None
    sampled = experiment.circuit.compile_detector_sampler(seed=11).sample(SHOTS)
    presence = experiment.layout.presence(ROUNDS)
    differ, total, apart = 0, 0, 0.0
    for events in experiment.layout.volume(sampled, experiment.rounds):
        volume = np.concatenate([events, presence]).astype(np.float32)
        expected = answer(whole, volume, np.ones(ROUNDS, np.bool_))
        for start in range(0, ROUNDS, COMMIT):
            closing = start + window >= ROUNDS
            stop = ROUNDS if closing else start + window
            layers = np.arange(start - halo, start + window)
            there = (layers >= 0) & (layers < stop)
            chunk = np.zeros((4, len(layers), 5, 5), np.float32)
            chunk[:, there] = volume[:, layers[there]]
            found = answer(pieces, chunk, there)
            answered = slice(start, stop if closing else stop - halo)
            mine = found[:, answered.start - start + halo : answered.stop - start + halo]
            theirs = expected[:, answered]
            wrong = (mine >= threshold) != (theirs >= threshold)
            differ, total = differ + int(wrong.sum()), total + wrong.size
            apart = max(apart, float(np.abs(theirs - threshold)[wrong].max(initial=0.0)))
            if closing:
                break
    assert apart < EPSILON[precision]
    assert differ <= FRACTION_MAX * total
