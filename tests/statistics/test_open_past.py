"""What it costs to take up a stream in the middle, on simulated shots with fixed seeds. Figures: 2026-11-20, Stim 1.16.

It cannot cost nothing: an event whose partner lies in rounds that are gone looks like a data error at the boundary, so
that about one shot in a hundred is decided differently in the first window. That is why its frame stays tainted.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtqec.plan import Plan
from rtqec.plan.schedule import WindowRounds, windows_of_shot
from rtqec.wire import Rung
from tests.harness import make_plan, slow_decoder

pytestmark = pytest.mark.statistics
SHOTS = 40_000


def decode_window(plan: Plan, window: WindowRounds, residual: NDArray[np.uint8], open_past: bool) -> NDArray[np.bool_]:
    """Flips of one window of many shots; its seam is XORed into `residual`."""
    layer_bytes = plan.layout.layer_bytes
    decoder = slow_decoder(plan).decoder(window, Rung.MATCH, open_past)
    rows = np.zeros((len(residual), decoder.model.row_bytes), np.uint8)
    seen = residual[:, window.start * layer_bytes : window.stop * layer_bytes]
    rows[:, : seen.shape[1]] = seen
    answer = np.unpackbits(decoder(rows & decoder.model.mask_b8), axis=1, bitorder="little")
    for bit, (rounds_after, slot) in enumerate(decoder.model.seam.tolist(), start=1):
        residual[:, (window.commit_stop + rounds_after) * layer_bytes + slot // 8] ^= answer[:, bit] << (slot % 8)
    return answer[:, 0].astype(np.bool_)


def changed(distance: int, noise: float, open_past: bool) -> list[int]:
    """Shots of which a window decides otherwise than in an undisturbed decoding: for the window with which decoding is
    taken up in the middle, knowing nothing of the rounds before, and for each after it."""
    plan = make_plan(
        plan__distance=distance, plan__rounds=8 * distance, plan__noise=noise, window__commit_rounds=distance,
        window__buffer_rounds=distance,
    )  # fmt: skip
    events = plan.experiment.circuit.compile_detector_sampler(seed=7).sample(SHOTS)
    layers_b8 = plan.rounds.layers_b8(np.asarray(events, np.bool_))
    windows = windows_of_shot(plan.rounds.num_rounds, plan.window)
    undisturbed = layers_b8.copy()
    expected = [decode_window(plan, window, undisturbed, False) for window in windows]
    resumed = layers_b8.copy()
    found = [decode_window(plan, window, resumed, open_past and i == 0) for i, window in enumerate(windows[4:])]
    return [int((a ^ b).sum()) for a, b in zip(expected[4:], found, strict=True)]


@pytest.mark.parametrize(("distance", "noise", "at_most"), [(3, 0.001, 300), (5, 0.001, 550), (5, 0.003, 1750)])
def test_an_open_past_is_forgotten_within_a_window(distance: int, noise: float, at_most: int) -> None:
    """Behind the first window, 0, 0 and 1 of 40,000 shots are decided otherwise; in it 237, 446 and 1465."""
    first, *later = changed(distance, noise, open_past=True)
    assert sum(later) <= 10
    assert first <= at_most


def test_an_open_past_is_better_than_a_closed_one() -> None:
    """A window that takes its first events for errors of its own, d = 5, decides 1041 shots otherwise, not 446."""
    assert changed(5, 0.001, open_past=False)[0] > 1.8 * changed(5, 0.001, open_past=True)[0]
